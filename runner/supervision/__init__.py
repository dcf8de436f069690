"""Starting a run, keeping watch over it, recording its end."""
