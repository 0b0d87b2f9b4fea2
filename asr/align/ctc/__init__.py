"""Forced alignment with a CTC model of Hugging Face transformers. Extra ``[ctc]``."""
