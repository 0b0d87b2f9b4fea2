"""Forced alignment with a CTC model of Hugging Face transformers. Extra ``[ctc]``.

In reading order: `aligner` (the model and its threads), `batching`, `spelling` (words to labels),
`frames` (frames to seconds), `trellis` (the search), `word_times` (the path as words). Only
`aligner` imports torch.

The package knows nothing of engines, jobs or files.
"""
