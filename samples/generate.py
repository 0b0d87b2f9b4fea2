"""Make the sample recordings: speech from Festival, with the exact time of every word.

Every text in `texts/` is spoken sentence by sentence by a Festival voice, laid out with pauses,
shaped (level, telephone band, room noise) and encoded by ffmpeg. A word's time is the
synthesiser's own plus the measured delay of the codec, so it is right for the decoded file. The
same package versions give the same bytes: noise and pauses are seeded, and ffmpeg writes no dates.
This script does not depend on the service.

Needs the Debian packages festival, festvox-kallpc16k, festvox-kdlpc16k, festvox-us-slt-hts and
ffmpeg, and numpy, soundfile and PyAV in Python.

    python samples/generate.py --out samples

Festival: https://www.cstr.ed.ac.uk/projects/festival/
"""

import argparse
import json
import re
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TypeAlias

import av
import numpy as np
import soundfile as sf
from numpy.typing import NDArray

Samples: TypeAlias = NDArray[np.float64]

TEXTS = Path(__file__).parent / "texts"
LICENCE = "CC0-1.0"
SEED = 20
PEAK = 0.6  # of full scale: leaves room for the overshoot of a lossy codec
NOISE = 10 ** (-66 / 20)  # room noise, RMS of full scale
EDGE_SECONDS = 0.4  # silence before the first sentence and after the last
SENTENCE_PAUSE = (0.15, 0.60)  # seconds, besides the silence that the voice itself leaves
TELEPHONE_BAND = (300.0, 3400.0)  # Hz
DELAY_WINDOW_SECONDS = 15.0

# A report line is "sentence", "token" or "word <start> <end>", in the order they are spoken.
# Punctuation is a word to Festival too, but one without syllables, hence without a time.
SCHEME = """
(define (report-word word)
  (if (item.relation.daughters word 'SylStructure)
    (format t "word %f %f\\n" (item.feat word 'word_start) (item.feat word 'word_end))))
(define (report-token item)
  (if (not (item.parent item))
    (begin (format t "token\\n") (mapcar report-word (item.daughters item)))))
(define (speak text file)
  (let ((utterance (SynthText text)))
    (utt.save.wave utterance file 'riff)
    (format t "sentence\\n")
    (mapcar report-token (utt.relation.items utterance 'Token))))
"""


@dataclass(frozen=True, slots=True)
class Recipe:
    """How one recording is made; its text is the file of the same stem in `texts/`.

    Attributes:
        voice: Festival's name, without "voice_".
        encoding: ffmpeg's options for the output.
        gains: one per channel of the file.
        pauses: seconds of near-silence between the paragraphs.
        band: the pass band in Hz; None for no filter.
    """

    file: str
    category: str
    voice: str
    sample_rate: int
    encoding: tuple[str, ...]
    gains: tuple[float, ...] = (1.0,)
    pauses: tuple[float, ...] = ()
    band: tuple[float, float] | None = None

    @property
    def name(self) -> str:
        """The file's name without its format."""
        return Path(self.file).stem

    @property
    def text(self) -> str:
        """The text; blank lines separate paragraphs."""
        return (TEXTS / f"{self.name}.txt").read_text(encoding="ascii")


@dataclass(frozen=True, slots=True)
class Word:
    """One whitespace-separated word of the text, with its punctuation; start and end in seconds."""

    text: str
    start: float
    end: float

    def delayed(self, seconds: float) -> "Word":
        """Return the same word, later by some seconds."""
        return replace(self, start=self.start + seconds, end=self.end + seconds)


@dataclass(frozen=True, slots=True)
class Speech:
    """Speech in [-1, 1], shape (n_samples,), and the words in it."""

    samples: Samples
    sample_rate: int
    words: tuple[Word, ...]


RECIPES = (
    Recipe("meeting.wav", "meeting", "cmu_us_slt_arctic_hts", 16_000, ("-c:a", "pcm_s16le")),
    Recipe(
        "lecture.mp3",
        "lecture",
        "cmu_us_slt_arctic_hts",
        44_100,
        ("-c:a", "libmp3lame", "-b:a", "96k"),
        gains=(1.0, 0.7),
    ),
    Recipe(
        "telephone.wav",
        "telephone",
        "ked_diphone",
        8_000,
        ("-c:a", "pcm_mulaw"),
        band=TELEPHONE_BAND,
    ),
    Recipe("memo.m4a", "numbers", "kal_diphone", 44_100, ("-c:a", "aac", "-b:a", "80k")),
    Recipe(
        "pauses.ogg",
        "pauses",
        "cmu_us_slt_arctic_hts",
        48_000,
        ("-c:a", "libopus", "-b:a", "24k"),
        pauses=(12.0, 18.0, 25.0, 32.0, 40.0),
    ),
)


def split_sentences(paragraph: str) -> list[str]:
    """Cut a paragraph after each full stop or question mark that a space follows."""
    return re.split(r"(?<=[.?!])\s+", " ".join(paragraph.split()))


def speak(sentences: Sequence[str], voice: str) -> list[Speech]:
    """Let Festival speak every sentence, each with the times of its words."""
    with tempfile.TemporaryDirectory() as scratch:
        files = [Path(scratch, f"{number}.wav") for number in range(len(sentences))]
        report = run_festival(sentences, files, voice)
        times = parse_report(report)
        return [
            to_speech(file, sentence, spans)
            for file, sentence, spans in zip(files, sentences, times, strict=True)
        ]


def run_festival(sentences: Sequence[str], files: Sequence[Path], voice: str) -> str:
    """Write one WAV per sentence; return the report that SCHEME prints."""
    calls = [
        f"(speak {json.dumps(sentence)} {json.dumps(str(file))})"
        for sentence, file in zip(sentences, files, strict=True)
    ]
    script = files[0].with_name("speak.scm")
    script.write_text("\n".join([SCHEME, f"(voice_{voice})", *calls]), encoding="ascii")
    finished = subprocess.run(
        ["festival", "-b", str(script)], capture_output=True, text=True, check=True
    )
    return finished.stdout


def parse_report(report: str) -> list[list[tuple[float, float]]]:
    """Return for each sentence the (start, end) of its tokens, from the first word to the last."""
    sentences: list[list[list[float]]] = []
    for line in report.splitlines():
        kind, *numbers = line.split()
        if kind == "sentence":
            sentences.append([])
        elif kind == "token":
            sentences[-1].append([])
        elif kind == "word":
            sentences[-1][-1].extend(float(number) for number in numbers)
    return [[(token[0], token[-1]) for token in tokens] for tokens in sentences]


def to_speech(file: Path, sentence: str, spans: Sequence[tuple[float, float]]) -> Speech:
    """Join Festival's audio and times with our words, which must be as many as its tokens."""
    samples, sample_rate = sf.read(file, dtype="float64")
    words = tuple(
        Word(text, start, end) for text, (start, end) in zip(sentence.split(), spans, strict=True)
    )
    return Speech(samples, sample_rate, words)


def resample(samples: Samples, sample_rate: int, target: int) -> Samples:
    """Resample in the frequency domain, which adds no delay.

    The samples have shape (n_samples,) and must be quiet at both ends.
    """
    length = round(len(samples) * target / sample_rate)
    return np.fft.irfft(np.fft.rfft(samples), n=length) * (length / len(samples))


def band_pass(samples: Samples, sample_rate: int, band: tuple[float, float]) -> Samples:
    """Band-pass filter with edges 100 Hz wide and no delay."""
    frequencies = np.fft.rfftfreq(len(samples), 1 / sample_rate)
    low, high = band
    inside = np.minimum(frequencies - low, high - frequencies)
    ramp = np.clip(inside / 100.0 + 0.5, 0.0, 1.0)
    return np.fft.irfft(np.fft.rfft(samples) * np.sin(ramp * np.pi / 2) ** 2, n=len(samples))


def plan_gaps(sizes: Sequence[int], pauses: Sequence[float], seed: int) -> list[float]:
    """Return the silence in seconds before each sentence; `sizes` is sentences per paragraph."""
    random = np.random.default_rng(seed)
    gaps: list[float] = []
    for size, pause in zip(sizes, (EDGE_SECONDS, *pauses), strict=True):
        gaps += [pause, *random.uniform(*SENTENCE_PAUSE, size - 1).tolist()]
    return gaps


def lay_out(spoken: Sequence[Speech], gaps: Sequence[float], sample_rate: int) -> Speech:
    """Set the sentences one after another, each after its gap, at one sample rate."""
    pieces: list[Samples] = []
    words: list[Word] = []
    position = 0
    for speech, gap in zip(spoken, gaps, strict=True):
        samples = resample(speech.samples, speech.sample_rate, sample_rate)
        silence = np.zeros(round(gap * sample_rate))
        sentence_start = (position + len(silence)) / sample_rate
        words += [word.delayed(sentence_start) for word in speech.words]
        pieces += [silence, samples]
        position += len(silence) + len(samples)
    pieces.append(np.zeros(round(EDGE_SECONDS * sample_rate)))
    return Speech(np.concatenate(pieces), sample_rate, tuple(words))


def render(recipe: Recipe) -> Speech:
    """Speak a recipe's text; return the mono samples for the encoder."""
    paragraphs = [split_sentences(part) for part in recipe.text.split("\n\n")]
    gaps = plan_gaps([len(part) for part in paragraphs], recipe.pauses, SEED)
    spoken = speak([sentence for part in paragraphs for sentence in part], recipe.voice)
    speech = lay_out(spoken, gaps, recipe.sample_rate)
    samples = speech.samples * (PEAK / np.abs(speech.samples).max())
    samples += np.random.default_rng(SEED).normal(0.0, NOISE, len(samples))
    if recipe.band:
        samples = band_pass(samples, recipe.sample_rate, recipe.band)
    return replace(speech, samples=samples)


def encode(samples: Samples, recipe: Recipe, file: Path) -> None:
    """Write mono samples to the recipe's format and channels, with no date or version in it."""
    channels = np.outer(samples, recipe.gains).astype("<f4")
    source = ["-f", "f32le", "-ar", str(recipe.sample_rate), "-ac", str(len(recipe.gains))]
    command = ["ffmpeg", "-v", "error", "-y", *source, "-i", "pipe:", *recipe.encoding]
    subprocess.run(
        [*command, "-bitexact", "-map_metadata", "-1", str(file)],
        input=channels.tobytes(),
        check=True,
    )


def decode(file: Path) -> tuple[Samples, int]:
    """Decode the first channel, shape (n_samples,); FFmpeg decodes m4a, libsndfile the rest."""
    if file.suffix == ".m4a":
        return decode_av(file)
    samples, sample_rate = sf.read(file, dtype="float64", always_2d=True)
    return samples[:, 0], sample_rate


def decode_av(file: Path) -> tuple[Samples, int]:
    """Decode the first channel with FFmpeg's libraries, for formats that libsndfile cannot read."""
    with av.open(str(file)) as container:
        stream = container.streams.audio[0]
        resampler = av.AudioResampler(format="fltp")
        frames = [out for frame in container.decode(stream) for out in resampler.resample(frame)]
        channel = np.concatenate([frame.to_ndarray()[0] for frame in frames])
        return channel.astype(np.float64), stream.rate


def measure_delay(reference: Samples, decoded: Samples) -> int:
    """Return the delay of `decoded` in samples: the peak of the cross-correlation."""
    size = len(reference) + len(decoded)
    spectrum = np.fft.rfft(decoded, size) * np.conj(np.fft.rfft(reference, size))
    lag = int(np.argmax(np.fft.irfft(spectrum, size)))
    return lag if lag < len(decoded) else lag - size


def make(recipe: Recipe, folder: Path) -> dict[str, object]:
    """Write a recording and its JSON; return its entry of the manifest."""
    speech = render(recipe)
    encode(speech.samples, recipe, folder / recipe.file)
    decoded, sample_rate = decode(folder / recipe.file)
    window = int(DELAY_WINDOW_SECONDS * sample_rate)
    delay = measure_delay(speech.samples[:window], decoded[:window]) / sample_rate
    words = [to_entry(word.delayed(delay)) for word in speech.words]
    text = " ".join(word.text for word in speech.words)
    duration = round(len(decoded) / sample_rate, 3)
    entry = {"file": recipe.file, "text": text, "duration": duration}
    channels = len(recipe.gains)
    facts = {"voice": recipe.voice, "sample_rate": sample_rate, "channels": channels}
    write_json(folder / f"{recipe.name}.json", entry | facts, words)
    print(f"{recipe.file}: {duration:.2f} s, codec delay {delay * 1000:.2f} ms")
    return entry | {"category": recipe.category, "licence": LICENCE, "words": words}


def to_entry(word: Word) -> dict[str, object]:
    """Return a word for JSON, its times in whole milliseconds."""
    return asdict(replace(word, start=round(word.start, 3), end=round(word.end, 3)))


def write_json(file: Path, facts: dict[str, object], words: Sequence[dict[str, object]]) -> None:
    """Write one field or word per line, so that diffs are short."""
    lines = [f"  {json.dumps(key)}: {json.dumps(value)}," for key, value in facts.items()]
    rows = ",\n".join(f"    {json.dumps(word)}" for word in words)
    body = "\n".join(["{", *lines, '  "words": [', rows, "  ]", "}"])
    file.write_text(f"{body}\n", encoding="ascii")


def main() -> None:
    """Make every recording, and the manifest that lists them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder for the recordings")
    folder: Path = parser.parse_args().out
    folder.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps(make(recipe, folder)) for recipe in RECIPES]
    (folder / "manifest.jsonl").write_text("\n".join([*lines, ""]), encoding="ascii")


if __name__ == "__main__":
    main()
