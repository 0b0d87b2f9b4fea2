"""Draw what was recognised where, and the errors of word times.

Needs the extra ``plot``: librosa for waveform and mel spectrogram, matplotlib to draw. A picture
shows a few minutes at most, so that no whole recording is in memory.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from asr.config import check
from asr.types import SAMPLE_RATE

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from asr.evaluation import Report
    from asr.pictures.inspection import Inspection
    from asr.types import Word

MAX_SECONDS: Final = 300.0
"""Longest stretch of a picture, which has one row for each `ROW_SECONDS`."""
ROW_SECONDS: Final = 15.0
WIDTH_INCHES: Final = 18.0
DPI: Final = 110
CLIP_MS: Final = 300.0
"""Larger errors are counted but not drawn."""

_ROW_INCHES = 3.3
_HEAD_INCHES = 0.8
_HOP = SAMPLE_RATE // 100
_UNKNOWN = "0.8"
_SPEECH, _CUT, _FLAG = "tab:green", "tab:blue", "tab:red"


def plot(inspection: Inspection, target: Path) -> None:
    """Draw waveform, spectrogram, speech, chunks and words of a stretch as a PNG.

    Raises:
        InvalidOption: the extra is not installed, or the stretch is too long.
    """
    seconds = inspection.audio.duration
    check(seconds <= MAX_SECONDS, "end", f"a picture shows {MAX_SECONDS:g} seconds at most")
    n_rows = max(1, math.ceil(seconds / ROW_SECONDS - 1e-9))
    height = _ROW_INCHES * n_rows + _HEAD_INCHES
    figure = _figure(WIDTH_INCHES, height)
    grid = figure.add_gridspec(
        n_rows, 1, top=1 - _HEAD_INCHES / height, bottom=0.35 / height, left=0.04, right=0.99,
        hspace=0.14,
    )  # fmt: skip
    mel = _mel(inspection.audio.samples)
    for index in range(n_rows):
        parts = grid[index].subgridspec(3, 1, height_ratios=(1, 1.4, 1.1), hspace=0.03)
        axes = [figure.add_subplot(part) for part in parts]
        start = inspection.start + index * ROW_SECONDS
        span = (start, start + min(seconds, ROW_SECONDS))
        _draw_wave(axes[0], inspection, span)
        _draw_mel(axes[1], mel, inspection.start, span)
        _draw_words(axes[2], inspection, span)
        for axis in axes:
            axis.set_xlim(span)
            axis.tick_params(labelsize=7)
        for axis in axes[:2]:
            axis.set_xticks([])
        axes[2].xaxis.set_major_formatter("{x:g} s")
    _add_head(figure, inspection, height)
    figure.savefig(target, format="png", dpi=DPI)


def plot_errors(report: Report, folder: Path, collar: float) -> list[Path]:
    """Draw the errors of an evaluation; return the paths of the PNG files.

    ``times.png``: how late words start and end, and the cumulative share of the errors.
    ``files.png``: the word error rate of each file.

    Raises:
        InvalidOption: the extra is not installed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / "times.png", folder / "files.png"]
    figure = _figure(11, 7)
    axes = figure.subplots(2, 2)
    errors = {"start": report.times.start_errors, "end": report.times.end_errors}
    for row, (name, seconds) in zip(axes, errors.items(), strict=True):
        milliseconds = 1000 * np.array(seconds)
        _draw_histogram(row[0], name, milliseconds)
        _draw_shares(row[1], name, np.abs(milliseconds), 1000 * collar)
    figure.tight_layout()
    figure.savefig(paths[0], format="png", dpi=DPI)
    _plot_files(report, paths[1])
    return paths


# --- a stretch of a recording -------------------------------------------------------------------


def _figure(width: float, height: float) -> Any:
    """A figure without a window."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        check(False, "plot", "matplotlib is not installed; pip install 'asr-service[plot]'")
    figure = Figure(figsize=(width, height))
    canvas: Any = FigureCanvasAgg(figure)
    # librosa asks for a drawing of the whole figure after each wave; `savefig` draws it once.
    canvas.draw_idle = lambda *_, **__: None
    return figure


def _librosa() -> Any:
    try:
        import librosa
    except ImportError:
        check(False, "plot", "librosa is not installed; pip install 'asr-service[plot]'")
    return librosa


def _mel(samples: np.ndarray) -> np.ndarray:
    """Mel bands in dB relative to the loudest, shape (n_bands, n_frames), one frame per 10 ms."""
    librosa = _librosa()
    power = librosa.feature.melspectrogram(
        y=samples, sr=SAMPLE_RATE, n_fft=512, hop_length=_HOP, n_mels=80, fmax=SAMPLE_RATE / 2
    )
    decibels: np.ndarray = librosa.power_to_db(power, ref=np.max, top_db=70)
    return decibels


def _draw_wave(axis: Any, inspection: Inspection, span: tuple[float, float]) -> None:
    first, last = (round((time - inspection.start) * SAMPLE_RATE) for time in span)
    samples = inspection.audio.samples[first:last]
    _librosa().display.waveshow(
        samples, sr=SAMPLE_RATE, offset=span[0], ax=axis, axis=None, color="0.35", max_points=3000
    )
    limit = 1.05 * max(0.05, float(np.abs(inspection.audio.samples).max(initial=0.0)))
    axis.set_ylim(-limit, limit)
    axis.set_yticks([])
    axis.set_ylabel("wave", fontsize=8)
    for region in inspection.regions:
        axis.axvspan(region.start, region.end, color=_SPEECH, alpha=0.18, linewidth=0)
    for chunk in inspection.chunks:
        axis.axvline(chunk.start, color=_CUT, linewidth=1.4)
        axis.axvline(chunk.end, color=_CUT, linewidth=1.4, linestyle=":")
        if span[0] <= chunk.start < span[1]:
            axis.text(
                chunk.start, limit, f"chunk {chunk.index}", color=_CUT, fontsize=7, va="top",
                bbox={"facecolor": "white", "edgecolor": "none", "pad": 1.5, "alpha": 0.85},
            )  # fmt: skip


def _draw_mel(axis: Any, mel: np.ndarray, origin: float, span: tuple[float, float]) -> None:
    first, last = (round((time - origin) * SAMPLE_RATE / _HOP) for time in span)
    part = mel[:, first:last]
    if part.shape[1]:
        extent = (span[0], span[0] + part.shape[1] * _HOP / SAMPLE_RATE, 0, len(mel))
        axis.imshow(
            part, origin="lower", aspect="auto", extent=extent, cmap="magma", vmin=-70, vmax=0
        )
    axis.set_yticks([])
    axis.set_facecolor("0.93")  # visible only after the end of the recording
    axis.set_ylabel("80 mel", fontsize=8)


def _draw_words(axis: Any, inspection: Inspection, span: tuple[float, float]) -> None:
    """A box for each word, coloured by confidence; warnings are above."""
    from matplotlib import colormaps
    from matplotlib.patches import Rectangle

    colours = colormaps["RdYlGn"]
    for word in _between(inspection.transcript.words, *span):
        colour = _UNKNOWN if word.confidence is None else colours(word.confidence, alpha=0.7)
        is_guess = word.timing == "interpolated"
        box = Rectangle((word.start, 0), max(word.end - word.start, 0.01), 1, linewidth=0.7)
        box.set(facecolor=colour, edgecolor="0.3", linestyle="--" if is_guess else "-")
        axis.add_patch(box)
        text = _shown(word.text)
        axis.text(
            word.midpoint, 0.5, text, rotation=90, ha="center", va="center", clip_on=True,
            fontsize=8 if len(text) < 11 else 6, style="italic" if is_guess else "normal",
        )  # fmt: skip
    for segment in inspection.transcript.segments:
        if segment.warnings and segment.start < span[1] and segment.end > span[0]:
            axis.axvspan(segment.start, segment.end, ymin=1.02 / 1.22, color=_FLAG, linewidth=0)
            place = (max(segment.start, span[0]), 1.11)
            text = " " + _shown("; ".join(segment.warnings), 100)
            axis.text(*place, text, color="white", fontsize=7, va="center", clip_on=True)
    axis.set_ylim(0, 1.22)
    axis.set_yticks([])
    axis.set_ylabel("words", fontsize=8)


def _between(words: Sequence[Word], start: float, end: float) -> Iterator[Word]:
    return (word for word in words if word.start < end and word.end > start)


def _shown(text: str, limit: int = 15) -> str:
    """Text escaped for matplotlib, which reads $ as mathematics, and shortened."""
    cut = text if len(text) <= limit else text[: limit - 1] + "…"
    return cut.replace("$", r"\$")


def _add_head(figure: Any, inspection: Inspection, height: float) -> None:
    """Add the title, the legend and the colour scale of confidence."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    transcript = inspection.transcript
    figure.text(
        0.04, 1 - 0.3 / height, f"{inspection.start:.1f} to {inspection.end:.1f} s of "
        f"{transcript.duration:.1f} s   |   {transcript.engine}   |   times: "
        f"{transcript.aligner or 'the engine'}", fontsize=11,
    )  # fmt: skip
    handles = [
        Patch(color=_SPEECH, alpha=0.3, label="speech"),
        Line2D([], [], color=_CUT, label="chunk begins"),
        Line2D([], [], color=_CUT, linestyle=":", label="chunk ends"),
        Patch(facecolor="white", edgecolor="0.3", linestyle="--", label="interpolated"),
        Patch(facecolor=_UNKNOWN, edgecolor="0.3", label="confidence unknown"),
        Patch(color=_FLAG, label="flagged"),
    ]
    figure.legend(
        handles=handles, loc="upper left", bbox_to_anchor=(0.035, 1 - 0.33 / height), ncols=6,
        fontsize=8, frameon=False,
    )  # fmt: skip
    scale = figure.add_axes((0.8, 1 - 0.5 / height, 0.19, 0.14 / height))
    figure.colorbar(ScalarMappable(cmap="RdYlGn"), cax=scale, orientation="horizontal", alpha=0.7)
    scale.set_title("confidence", fontsize=8, pad=2)
    scale.tick_params(labelsize=7)


# --- an evaluation ------------------------------------------------------------------------------


def _draw_histogram(axis: Any, name: str, errors: np.ndarray) -> None:
    inside = errors[np.abs(errors) <= CLIP_MS]
    axis.hist(inside, bins=np.arange(-CLIP_MS, CLIP_MS + 1, 10), color="tab:blue")
    axis.axvline(0, color="0.4", linewidth=0.8)
    note = "no words with times"
    if len(errors):
        median = float(np.median(errors))
        axis.axvline(median, color=_FLAG, linewidth=1.2)
        n_out = len(errors) - len(inside)
        note = f"median {median:+.0f} ms, {n_out} of {len(errors)} beyond {CLIP_MS:.0f} ms"
    axis.set_title(f"word {name}s: {note}", fontsize=10)
    axis.set_xlabel("ms late")
    axis.set_ylabel("words")


def _draw_shares(axis: Any, name: str, errors: np.ndarray, collar_ms: float) -> None:
    axis.set_xscale("log")
    axis.xaxis.set_major_formatter("{x:g}")
    axis.set_xlim(1, 5000)
    axis.set_ylim(0, 100)
    note = ""
    if len(errors):
        ranked = np.sort(errors)
        axis.plot(np.maximum(ranked, 1), 100 * np.arange(1, len(ranked) + 1) / len(ranked))
        note = f": {100 * np.mean(errors <= collar_ms):.1f}% within {collar_ms:.0f} ms"
    axis.axvline(collar_ms, color="0.4", linestyle="--", linewidth=0.8)
    axis.set_title(f"word {name}s{note}", fontsize=10)
    axis.set_xlabel("ms off at the most")
    axis.set_ylabel("% of the words")
    axis.grid(alpha=0.3)


def _plot_files(report: Report, target: Path) -> None:
    rates = sorted(
        ((100 * (r.words.wer or 0.0), r.utterance.file.name) for r in report.results), reverse=True
    )[:60]
    figure = _figure(11, 1.2 + 0.24 * len(rates))
    axis = figure.subplots()
    axis.barh([_shown(name, 50) for _, name in rates], [rate for rate, _ in rates])
    axis.invert_yaxis()
    axis.set_xlim(0, 1.05 * max(1.0, *(rate for rate, _ in rates), 1.0))
    axis.set_xlabel("word error rate in %")
    axis.set_title(f"the {len(rates)} worst of {len(report.results)} files", fontsize=10)
    figure.tight_layout()
    figure.savefig(target, format="png", dpi=DPI)
