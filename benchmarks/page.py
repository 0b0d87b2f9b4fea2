"""How fast the web page is with a transcript of ten hours: python -m benchmarks.page.

It needs Chromium and Playwright (``make test-page`` installs them) and measures in a real browser
without a window, with the service in the same process:

- the time from opening the address to the first word on the screen,
- the frames per second while the list scrolls through all lines, and the longest frame,
- the memory of the tab's JavaScript, and the elements in the document.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from playwright.sync_api import sync_playwright

from tests.page import conftest
from tests.support import serving as sounds
from tests.support.inprocess import serving

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

RESULTS: Final = Path(__file__).parent / "results/page.json"
N_LINES: Final = 9_000
SECONDS: Final = 36_000.0
FIRST_WORD: Final = """() => new Promise((resolve) => {
  const look = () => document.querySelector("p.text")?.getBoundingClientRect().height
    ? resolve(performance.now()) : requestAnimationFrame(look);
  look();
})"""
SCROLL: Final = """(pixels) => new Promise((resolve) => {
  const list = document.querySelector(".transcript");
  const times = [];
  const step = (now) => {
    times.push(now);
    list.scrollTop += pixels;
    if (times.length < 600) requestAnimationFrame(step);
    else resolve(times.slice(1).map((it, i) => it - times[i]));
  };
  requestAnimationFrame(step);
})"""


def main() -> None:
    """Print the results and write them to a file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=5)
    runs = parser.parse_args().runs
    with serving() as site, sync_playwright() as playwright:
        pages: Any = conftest  # tests have no types
        wav: Any = sounds.make_wav
        job = pages.finished_job(site, wav(5))
        pages.lengthen(site, job, SECONDS)
        text = "this line has ten words so that there are many"
        pages.save(site, job, [pages.line(i * 4, text, seconds=3.5) for i in range(N_LINES)])
        path = os.environ.get("CHROMIUM") or shutil.which("chromium")
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        found = [_measure(browser, f"{site.url}/#job={job}") for _ in range(runs)]
        browser.close()
    result = {name: round(statistics.median(it[name] for it in found), 1) for name in found[0]}
    result = {"words": N_LINES * 10, "runs": runs, **result}
    RESULTS.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


def _measure(browser: Browser, address: str) -> dict[str, float]:
    page = browser.new_page(viewport={"width": 1280, "height": 800})
    page.goto(address, wait_until="commit")
    first_word = page.evaluate(FIRST_WORD)
    page.wait_for_selector("[data-ready]")
    frames = [it for speed in (40, 400, 4000) for it in page.evaluate(SCROLL, speed)]
    memory = _metrics(page)
    page.close()
    return {
        "first_word_ms": first_word,
        "frames_per_second": 1000 * len(frames) / sum(frames),
        "frames_over_34_ms_percent": 100 * sum(it > 34 for it in frames) / len(frames),
        "longest_frame_ms": max(frames),
        "javascript_mb": memory["JSHeapUsedSize"] / 1e6,
        "elements": memory["Nodes"],
    }


def _metrics(page: Page) -> dict[str, Any]:
    tools = page.context.new_cdp_session(page)
    tools.send("HeapProfiler.collectGarbage")
    tools.send("Performance.enable")
    return {it["name"]: it["value"] for it in tools.send("Performance.getMetrics")["metrics"]}


if __name__ == "__main__":
    main()
