"""The command line of the first hour: ``python -m benchmarks.first_hour --help``."""

from __future__ import annotations

import argparse
import asyncio
import math
import os
import sys
from pathlib import Path

from asr.config import check
from asr.engines.omni.http import SLOTS_PER_SERVER
from asr.errors import AsrError, InvalidOption
from asr.settings import Settings
from benchmarks.first_hour.bench import Bench
from benchmarks.first_hour.references import find_clips
from benchmarks.first_hour.run import STEPS, Request, everything
from benchmarks.first_hour.speed import Load


def parser() -> argparse.ArgumentParser:
    """The arguments."""
    made = argparse.ArgumentParser(
        prog="python -m benchmarks.first_hour",
        description="Measure a server with real weights, and judge each result; see "
        "docs/first-hour.md. All ASR_* settings apply, such as ASR_VLLM_API_KEY.",
    )
    made.add_argument("--server", required=True, help="URLs of the servers, separated by commas")
    made.add_argument(
        "--references",
        required=True,
        type=Path,
        help="a manifest, or a folder with manifests, LibriSpeech trees, or texts beside audio",
    )
    made.add_argument("--out", required=True, type=Path, help="folder of answers and report")
    made.add_argument("--minutes", type=_positive, default=60, help="the time it may take (60)")
    made.add_argument("--parallel", type=_count, help="clips in progress at once (64 per server)")
    made.add_argument(
        "--steps", nargs="+", choices=STEPS, default=STEPS, metavar="STEP", help=" ".join(STEPS)
    )
    made.add_argument(
        "--speed-minutes",
        type=_positive,
        default=10,
        help="length of the recordings for speed (10)",
    )
    made.add_argument("--speed-files", type=_count, nargs="+", default=[1, 4, 16], metavar="N")
    made.add_argument(
        "--speed-chunks", type=_count, nargs="+", default=[1, 16, 64, 128], metavar="N"
    )
    made.add_argument("--note", default="", help="a line for the head of the report")
    made.add_argument("-q", "--quiet", action="store_true", help="no progress bars")
    return made


def _positive(text: str) -> float:
    number = float(text)
    if not 0 < number < math.inf:
        raise argparse.ArgumentTypeError("must be a positive number")
    return number


def _count(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be 1 or more")
    return number


def main(arguments: list[str] | None = None) -> int:
    """Run everything; return 1 if it can be continued, and 2 if an argument is wrong."""
    options = parser().parse_args(arguments)
    env = os.environ | {"ASR_ENGINE": "omni", "ASR_VLLM_URL": options.server}
    load = Load(options.speed_minutes, tuple(options.speed_files), tuple(options.speed_chunks))
    request = Request(tuple(options.steps), load, options.note)
    try:
        is_free = options.out.is_dir() or not options.out.exists()
        check(is_free, "out", f"{options.out} is a file, and must be a folder")
        clips = find_clips(options.references)
        os.umask(0o077)  # answers are transcripts: only their owner reads them
        bench = Bench(
            Settings.from_env(env),
            options.out,
            clips,
            parallel=options.parallel or SLOTS_PER_SERVER * len(options.server.split(",")),
            minutes=options.minutes,
            quiet=options.quiet,
        )
        path = asyncio.run(everything(bench, request))
    except InvalidOption as error:
        print(error, file=sys.stderr)
        return 2
    except AsrError as error:
        print(f"{error}\nRun the same command again to continue.", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("Interrupted. Run the same command again to continue.", file=sys.stderr)
        return 130
    print(f"Report: {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
