"""Measure the speed of the full-size model on one GPU, alone and behind the service."""
