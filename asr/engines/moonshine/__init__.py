"""Moonshine: the embedded recogniser for machines without a GPU. English, CPU only.

    folder.py      where the model lies, its hashes, and its licence
    install.py     fetches the model, for ``asr models install``
    tokens.py      the tokenizer: token ids -> text
    model.py       encoder and decoder: samples -> tokens with log probabilities
    answer.py      tokens -> text with a confidence for each word
    silence.py     rules against text where nobody speaks
    worker.py      what the child processes run
    engine.py      `MoonshineEngine`

Moonshine tiny has 27 million parameters. It hears 4 words in 100 wrong in read speech, and runs
at more than 30 times real time on one core (docs/results.md).

Source: Jeffries et al., "Moonshine: Speech Recognition for Live Transcription and Voice Commands",
2024, https://arxiv.org/abs/2410.15608. The weights are those of the PyPI package moonshine-voice.
"""
