"""Let the tests and the processes that they start compile each module once.

With PYTHONDONTWRITEBYTECODE, which images for containers like to set, each of the hundred processes
compiles `asr` again (0.3 s of CPU time), and each worker of pytest all the tests (3 s).
"""

import os
import sys

sys.dont_write_bytecode = False
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
