"""A real Chromium, services for it, and a watch on what no page may do."""

import asyncio
import base64
import json
import os
import shutil
import time
import uuid
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import sqlalchemy as sa

from asr.service.jobs.tables import jobs
from tests.support.inprocess import serving
from tests.support.paths import ROOT

if not find_spec("playwright"):  # `make test-page` installs it; `make test` needs no browser
    collect_ignore_glob = ["test_browser_*.py"]

SAMPLES = ROOT / "samples"
PATIENCE = 120_000
"""Milliseconds that a condition may take on a busy machine."""
SWITCHES = [
    "--no-sandbox",  # root in a container
    "--use-fake-ui-for-media-stream",
    "--use-fake-device-for-media-stream",
    f"--use-file-for-fake-audio-capture={SAMPLES / 'meeting.wav'}",
    "--autoplay-policy=no-user-gesture-required",
]
WATCH = """
addEventListener("securitypolicyviolation", (event) => {
  console.error("CSP", event.violatedDirective, event.blockedURI);
});
"""


@pytest.fixture(scope="session")
def chromium():
    """One browser for all tests."""
    from playwright.sync_api import expect, sync_playwright

    expect.set_options(timeout=PATIENCE)

    path = os.environ.get("CHROMIUM") or shutil.which("chromium")
    assert path, "no Chromium: apt-get install chromium, or name it in CHROMIUM"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=SWITCHES)
        yield browser
        browser.close()


@dataclass
class Visitor:
    """A person with a browser of its own, on one service.

    Attributes:
        problems: what the console said, errors, and requests to other hosts.
        url: of the service.
    """

    context: object
    url: str
    problems: list = field(default_factory=list)

    def tab(self, hash_=""):
        page = self.context.new_page()
        page.set_default_timeout(PATIENCE)
        page.on("console", self._said)
        page.on("pageerror", lambda error: self.problems.append(f"error: {error}"))
        page.on("request", self._asked)
        page.on("dialog", lambda dialog: dialog.accept())  # "leave the page?"
        page.goto(f"{self.url}/{hash_}")
        return page

    def job(self, id_, more=""):
        page = self.tab(f"#job={id_}{more}")
        page.wait_for_selector("[data-ready]")
        return page

    def _said(self, message):
        # Statuses such as 412 are part of the protocol. The tests look at what the page does then.
        if message.type == "error" and "Failed to load resource" not in message.text:
            self.problems.append(message.text)

    def _asked(self, request):
        parts = urlsplit(request.url)
        own = urlsplit(self.url).netloc
        if parts.scheme not in ("blob", "about") and parts.netloc != own:
            self.problems.append(f"a request to another host: {request.url}")


@pytest.fixture
def visit(chromium):
    """Makes visitors; afterwards, none of them may have had a problem."""
    made = []

    def make(site, **options):
        options = {"viewport": {"width": 1280, "height": 800}, "reduced_motion": "reduce"} | options
        context = chromium.new_context(permissions=["microphone"], **options)
        context.add_init_script(WATCH)
        made.append(Visitor(context, site if isinstance(site, str) else site.url))
        return made[-1]

    yield make
    problems = [problem for visitor in made for problem in visitor.problems]
    for visitor in made:
        visitor.context.close()
    assert not problems


@pytest.fixture(scope="session")
def site():
    """A service whose engine says word0, word1, ... at once."""
    with serving() as server:
        yield server


@pytest.fixture(scope="session")
def slow_site():
    """A service whose engine needs half a second for each chunk."""
    with serving(FAKE_ENGINE_DELAY="0.5") as server:
        yield server


def until(page, script, seconds=PATIENCE / 1000):
    """Wait until an expression is true. wait_for_function needs eval, which the page forbids."""
    deadline = time.monotonic() + seconds
    while not page.evaluate(script):
        assert time.monotonic() < deadline, f"not within {seconds} s: {script}"
        page.wait_for_timeout(30)


def drop(page, *paths):
    """Drop files on the page, as a person does with the mouse."""
    files = [[p.name, base64.b64encode(p.read_bytes()).decode()] for p in map(Path, paths)]
    page.evaluate(
        """async (files) => {
          const data = new DataTransfer();
          for (const [name, text] of files) {
            const bytes = Uint8Array.from(atob(text), (it) => it.charCodeAt(0));
            data.items.add(new File([bytes], name, { type: "audio/wav", lastModified: 1 }));
          }
          for (const type of ["dragenter", "dragover", "drop"])
            dispatchEvent(new DragEvent(type, { dataTransfer: data, cancelable: true }));
        }""",
        files,
    )


def finished_job(site, audio, **fields):
    """A job that has succeeded and kept its recording; returns its id."""
    client = site.client()
    sent = {"file": ("talk.wav", audio)}
    own = {"keep_recording": "true", "metadata[test]": uuid.uuid4().hex}  # no two tests share a job
    job = client.post("/v1/jobs", files=sent, data=own | fields).json()
    with client.stream("GET", f"/v1/jobs/{job['id']}/events") as events:
        assert any(line == "event: done" for line in events.iter_lines())
    return job["id"]


def save(site, job, segments, speakers=None):
    """Store a corrected transcript, as another tab would."""
    client = site.client()
    tag = client.get(f"/v1/jobs/{job}/transcript").headers["etag"]
    body = json.dumps({"segments": segments, "speakers": speakers or {}})
    answer = client.put(
        f"/v1/jobs/{job}/transcript",
        content=body,
        headers={"If-Match": tag, "Content-Type": "application/json"},
    )
    assert answer.status_code == 200, answer.text


def lengthen(site, job, seconds):
    """Make the service believe that a job's recording is longer than it is."""
    times = {"transcribed": seconds, "decoded": seconds, "total": seconds}
    statement = sa.update(jobs).where(jobs.c.id == job).values(**times)
    database = site._application.jobs.store._database
    changed = database.run(lambda connection: connection.execute(statement).rowcount)
    assert asyncio.run_coroutine_threadsafe(changed, site._loop).result(30) == 1


def stored(site, job):
    """The transcript that the service has."""
    return site.client().get(f"/v1/jobs/{job}/transcript").json()


def line(start, text, *, seconds=2.0, speaker=None, doubtful=(), doubts=()):
    """A segment whose words share its time evenly."""
    words = text.split()
    step = seconds / max(1, len(words))
    times = [
        {
            "word": word,
            "start": round(start + i * step, 3),
            "end": round(start + (i + 1) * step, 3),
            "confidence": 0.9,
            "timing": "aligned",
            "doubtful": word in doubtful,
        }
        for i, word in enumerate(words)
    ]
    span = {"start": round(start, 3), "end": round(start + seconds, 3)}
    return {**span, "text": text, "speaker": speaker, "words": times, "doubts": list(doubts)}
