"""What each command does; `tui/cli.py` holds their arguments."""
