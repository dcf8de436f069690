"""What can be found wrong before a run starts."""
