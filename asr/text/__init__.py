"""What written text sounds like when it is read aloud, and where it may be broken. English."""
