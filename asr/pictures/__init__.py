"""Plots and clips, to see and hear what was recognised where."""
