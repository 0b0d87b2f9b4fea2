"""Recordings in any format to 16 kHz mono samples and speech regions."""
