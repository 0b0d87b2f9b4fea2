"""Speed of the full-size model on one GPU, and of the service in front of it."""
