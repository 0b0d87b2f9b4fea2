"""Counters of this process since its start. The service exports them as metrics.

A key exists in `COUNTS` only after its first event:

- ``chunks``: chunks processed, with any result.
- ``guard_NAME``: answers that the guard NAME of `asr.engines.guards` found suspicious.
- ``guard_witness``: answers to which `asr.align.witness` objects: words that are not in the audio,
  words faster than anyone speaks, or speech that belongs to no word.
- ``attempts_retry``: chunks recognised again at a higher temperature.
- ``attempts_split``: chunks recognised again in two halves.
- ``attempts_failed``: attempts of these two kinds that ended with an error.
- ``chunks_failed``: chunks that left a gap, or that a job will try again.
- ``chunks_doubtful``: chunks whose best answer is still suspicious.
- ``requests_retried``: requests sent to a server again.
- ``requests_failed``: requests that were refused, ran out of retries, or passed their deadline.
- ``servers_lost``: servers that left the rotation.
- ``servers_returned``: servers that came back into the rotation.
"""

from __future__ import annotations

from collections import Counter

COUNTS: Counter[str] = Counter()
