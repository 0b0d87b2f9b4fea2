"""Measure the numbers in README.md: word errors by voice, word times, delays of codecs.

The word error rate is that of pocketsphinx with its US-English model, each recording in one piece.
Words are compared in lower case without punctuation and digits. So a recording whose text has
digits is left out of the word errors and the word times, but not of the codec delays.

Word times are compared with the forced alignment of pocketsphinx, which is independent of the
synthesiser. The differences of single words scatter, but their median would show a shift of our
times.

The delay of a codec is the peak of the cross-correlation between the samples before encoding and
the decoded samples. libsndfile and FFmpeg's libraries decode. The delay is measured over the first
and over the last 15 s; the two values differ if the clocks drift.

Needs what generate.py needs, and pocketsphinx and jiwer.

    python samples/measure.py
"""

import json
import re
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import jiwer
import numpy as np
import soundfile as sf
from generate import (
    DELAY_WINDOW_SECONDS,
    RECIPES,
    Recipe,
    Samples,
    decode,
    decode_av,
    encode,
    measure_delay,
    render,
    resample,
)
from pocketsphinx import Decoder

HERE = Path(__file__).parent
MEETING = RECIPES[0]
VOICES = ("kal_diphone", "ked_diphone", "cmu_us_slt_arctic_hts")
MODEL_SAMPLE_RATE = 16_000


def normalise(text: str) -> str:
    """Return the words in lower case, without punctuation."""
    return " ".join(re.findall(r"[a-z']+", text.lower()))


def hear(decoder: Decoder, samples: Samples, sample_rate: int) -> None:
    """Decode one whole utterance; samples: shape (n_samples,)."""
    heard = resample(samples, sample_rate, MODEL_SAMPLE_RATE)
    pcm = np.clip(np.round(heard * 32768), -32768, 32767).astype("<i2")
    decoder.start_utt()
    decoder.process_raw(pcm.tobytes(), full_utt=True)
    decoder.end_utt()


def recognise(samples: Samples, sample_rate: int) -> str:
    """Return what pocketsphinx hears in samples, shape (n_samples,)."""
    decoder = Decoder(loglevel="FATAL")
    hear(decoder, samples, sample_rate)
    return str(decoder.hyp().hypstr)


def align(text: str, samples: Samples, sample_rate: int) -> list[tuple[float, float]]:
    """Return where pocketsphinx finds each word of a known text: (start, end) in seconds."""
    decoder = Decoder(loglevel="FATAL", lm=None)
    decoder.set_align_text(normalise(text))
    hear(decoder, samples, sample_rate)
    spoken = (part for part in decoder.seg() if part.word[0].isalpha())
    return [(part.start_frame / 100, (part.end_frame + 1) / 100) for part in spoken]


def report_times(name: str, samples: Samples, sample_rate: int) -> None:
    """Print by how much the aligner differs from the JSON of a recording."""
    facts = json.loads((HERE / f"{name}.json").read_text(encoding="ascii"))
    ours = [(word["start"], word["end"]) for word in facts["words"]]
    errors = 1000 * (np.array(align(facts["text"], samples, sample_rate)) - np.array(ours))
    for edge, column in zip(("starts", "ends"), errors.T, strict=True):
        p50, p95 = np.percentile(np.abs(column), (50, 95))
        shift = np.median(column)
        print(f"{name}, {edge}: shift {shift:+.0f} ms; apart {p50:.0f} ms (p50), {p95:.0f} (p95)")


def report_wer(name: str, text: str, samples: Samples, sample_rate: int) -> None:
    """Print the word error rate of pocketsphinx."""
    wer = jiwer.wer(normalise(text), recognise(samples, sample_rate))
    print(f"{name}: WER {wer:.1%} of {len(text.split())} words")


def measure_voices() -> None:
    """Print the error rate on the text of the meeting, spoken by every voice."""
    for voice in VOICES:
        speech = render(replace(MEETING, voice=voice))
        report_wer(f"meeting by {voice}", MEETING.text, speech.samples, speech.sample_rate)


def measure_recordings() -> None:
    """Print the error rate and the times' agreement on the recordings in this folder."""
    for recipe in RECIPES:
        if not re.search(r"\d", recipe.text):
            decoded = decode(HERE / recipe.file)
            report_wer(recipe.file, recipe.text, *decoded)
            report_times(recipe.name, *decoded)


def measure_codec(recipe: Recipe, folder: Path) -> None:
    """Print the delay in ms of one recording, at its start and end, by each decoder."""
    reference = render(recipe).samples
    file = folder / recipe.file
    encode(reference, recipe, file)
    decoded = {"FFmpeg": decode_av(file)[0]}
    if file.suffix != ".m4a":
        decoded["libsndfile"] = sf.read(file, always_2d=True)[0][:, 0]
    for decoder, samples in decoded.items():
        first, last = delays(reference, samples, recipe.sample_rate)
        extra = len(samples) - len(reference)
        print(f"{file.name} by {decoder}: {first:.2f}, {last:.2f} ms; length {extra:+} samples")


def delays(reference: Samples, decoded: Samples, sample_rate: int) -> Iterator[float]:
    """Yield the delay in ms over the first and the last window."""
    size = int(DELAY_WINDOW_SECONDS * sample_rate)
    for start in (0, max(0, len(reference) - size)):
        window = slice(start, start + size)
        yield measure_delay(reference[window], decoded[window]) * 1000 / sample_rate


def main() -> None:
    """Measure everything, in about two minutes."""
    measure_voices()
    measure_recordings()
    with tempfile.TemporaryDirectory() as scratch:
        for recipe in RECIPES:
            measure_codec(recipe, Path(scratch))


if __name__ == "__main__":
    main()
