"""Moonshine: the embedded recogniser for machines without a GPU. English, CPU only.

    folder.py      finds the folder of the model and checks the hashes of its files
    install.py     downloads the model, for ``asr models install``
    tokens.py      the tokenizer: token ids -> text
    model.py       encoder and decoder: samples -> tokens with log probabilities
    answer.py      tokens -> text with a confidence for each word
    silence.py     rules against text where nobody speaks
    worker.py      what the child processes run
    engine.py      `MoonshineEngine`

Moonshine tiny has 27 million parameters. docs/results.md has its accuracy and its speed.

Source: Jeffries et al., "Moonshine: Speech Recognition for Live Transcription and Voice Commands",
2024, https://arxiv.org/abs/2410.15608. The weights are those of the PyPI package moonshine-voice.
"""
