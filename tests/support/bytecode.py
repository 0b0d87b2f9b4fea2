"""Let the tests and the processes that they start compile each module only once.

Container images often set PYTHONDONTWRITEBYTECODE. Then each of the hundred processes compiles
`asr` again (0.3 s of CPU time), and each pytest worker compiles all tests (3 s).
"""

import os
import sys

sys.dont_write_bytecode = False
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
