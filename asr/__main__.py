"""``python -m asr`` does the same as ``asr``."""

import sys

from asr.cli import main

sys.exit(main())
