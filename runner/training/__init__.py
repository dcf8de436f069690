"""The training process: one attempt of one run."""
