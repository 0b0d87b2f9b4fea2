"""Forced alignment with pocketsphinx's acoustic model, a hidden Markov model. US English, CPU.

In reading order: `aligner` runs `forced` in child processes. `forced` aligns one text with one
stretch of audio. It needs `pronounce` (words to phones), `acoustics` and `mixtures` (the model and
its scores), `lattice`, `lattice_builder` and `viterbi` (the search), `word_times` (the path as
words), `confidence`, and `gaps` (speech that the text lacks).

The package knows nothing of engines, chunks, jobs or files.
"""
