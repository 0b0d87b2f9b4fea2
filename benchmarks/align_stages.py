"""Measure the CPU time of each stage of aligning one chunk, compiled and with numpy alone.

    python -m benchmarks.align_stages

The chunk is the sample meeting.wav: 26.3 s with 68 words. One process, one thread, the smallest of
several runs.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import numpy as np

from asr.align.hmm import compiled
from asr.align.hmm.acoustics import Scorer
from asr.align.hmm.cepstra import cepstra
from asr.align.hmm.forced import PRICES, ForcedAligner
from asr.align.hmm.mixtures import features
from asr.align.hmm.viterbi import background_scores, best_path
from asr.pcm import to_int16
from asr.text.spoken import spoken
from benchmarks.align_processes import read_chunks
from benchmarks.measure import save, start_with_one_thread

if TYPE_CHECKING:
    from collections.abc import Callable

RUNS = 9


def cpu_ms(work: Callable[[], Any]) -> float:
    """Return the smallest CPU time of several runs, in milliseconds."""
    best = float("inf")
    for _ in range(RUNS):
        started = time.process_time()
        work()
        best = min(best, time.process_time() - started)
    return round(1000 * best, 1)


def stages() -> dict[str, float]:
    """Measure all stages."""
    (audio, hypothesis), _ = read_chunks()
    texts = hypothesis.text.split()
    scorer = Scorer()
    aligner = ForcedAligner(scorer)
    builder, lexicon = aligner._builder, aligner._lexicon
    pcm = to_int16(audio.samples)
    lattice = builder.build(spoken(texts, lexicon), PRICES)
    wanted = np.unique(np.append(lattice.used_senones(), scorer.phones.all_monophones))
    heard = features(cepstra(pcm))
    scores = scorer.score(audio.pcm16(), wanted)
    background = background_scores(scorer.phones, scores)
    return {
        "lattice": cpu_ms(lambda: builder.build(spoken(texts, lexicon), PRICES)),
        "cepstra": cpu_ms(lambda: cepstra(pcm)),
        f"scores of {len(wanted)} senones": cpu_ms(lambda: scorer._mixtures.score(heard, wanted)),
        "phone loop": cpu_ms(lambda: background_scores(scorer.phones, scores)),
        "search": cpu_ms(lambda: best_path(lattice, scores, background)),
        "all, with the rest": cpu_ms(lambda: aligner.align(audio, texts)),
    }


def main() -> None:
    """Measure with and without the compiled loops."""
    start_with_one_thread(__spec__.name)
    fast = stages()
    compiled.load = lambda _name: None  # type: ignore[assignment]
    plain = stages()
    save("align_stages", [
        {"stage": name, "compiled, ms": fast[name], "numpy, ms": plain[name]} for name in fast
    ])  # fmt: skip


if __name__ == "__main__":
    main()
