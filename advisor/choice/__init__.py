"""Which method, which settings, and what else there would be."""
