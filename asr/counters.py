"""What this process has counted since it started, for whoever shows metrics.

`COUNTS` has these keys, and none of them before it is first counted:

- ``chunks``: recognised, whatever came of them.
- ``guard_NAME``: answers in which that guard of `asr.engines.guards` found something;
  ``guard_witness``: answers that the aligner did not hear in the audio.
- ``attempts_retry``, ``attempts_split``: chunks that were asked again at a higher temperature, and
  then in halves; ``attempts_failed``: those of these attempts that ended with an error.
- ``chunks_doubtful``: chunks whose best answer still has a finding.
- ``requests_retried``, ``requests_failed``: requests sent to a server again, and given up.
- ``servers_lost``, ``servers_returned``: servers that left the rotation, and that came back.
"""

from __future__ import annotations

from collections import Counter

COUNTS: Counter[str] = Counter()
