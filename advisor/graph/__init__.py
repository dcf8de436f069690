"""A model written down as operations, played forward and backward."""
