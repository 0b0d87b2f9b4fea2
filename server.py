"""Start the service: ``python server.py [--port 9000 ...]`` is the same as ``asr serve``.

docs/settings.md lists the settings. Each is a flag and an ``ASR_*`` variable.
"""

import sys

if __name__ == "__main__":
    # Imported here, because the worker process imports this file too but needs no command line.
    from asr.cli import main

    sys.exit(main(["serve", *sys.argv[1:]]))
