"""Forced alignment with the acoustic model of pocketsphinx. US English, CPU only."""
