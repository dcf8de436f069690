"""Facts as lines of text: the same pages for the command line and for the screens."""
