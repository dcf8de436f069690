"""The run directory: how it is written, read and judged."""
