"""Decides: facts in, recommendation and findings out. Pure: no I/O, no torch, no screen."""
