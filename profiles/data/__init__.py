"""Data set files: read, checked, counted."""
