"""Reloads, lost connections, two tabs, keys, and hostile names and texts."""

import json

import pytest
from playwright.sync_api import expect

from tests.page.conftest import drop, finished_job, line, save, stored, until
from tests.page.test_browser_path import edit, wait_saved
from tests.support.inprocess import serving
from tests.support.serving import make_wav, wait_for
from tests.support.wire import Wire

pytestmark = [pytest.mark.page, pytest.mark.timeout(600)]
HOSTILE = "<img src=x onerror='window.pwned=1'><script>window.pwned=1</script>"
RTL = "\u202e\u05e9\u05dc\u05d5\u05dd \u05e2\u05d5\u05dc\u05dd"  # shalom olam


@pytest.fixture
def wire(slow_site):
    """A connection to the slow service that a test may cut."""
    made = Wire(int(slow_site.url.rpartition(":")[2]))
    yield made
    made.close()


def n_lines(page):
    """How many lines the transcript has, those outside the screen included."""
    shown = (
        page.locator(".row").first.get_attribute("aria-setsize")
        if page.locator(".row").count()
        else 0
    )
    return int(shown or 0)


def test_an_upload_continues_after_a_reload(site, visit, tmp_path):
    path = tmp_path / "long upload.wav"
    path.write_bytes(make_wav(300))
    visitor = visit(site)
    page = visitor.tab()
    network = visitor.context.new_cdp_session(page)
    slow = {"offline": False, "latency": 0, "downloadThroughput": -1, "uploadThroughput": 1_500_000}
    network.send("Network.enable")
    network.send("Network.emulateNetworkConditions", slow)
    page.locator("input[type=file]").set_input_files(path)
    until(page, "document.querySelector('.uploads progress')?.value > 1000000")
    page.reload()
    network.detach()
    expect(page.locator(".uploads .broken")).to_contain_text("long upload.wav")
    with page.expect_request(lambda it: it.method == "PATCH") as resumed:
        page.locator("input[type=file]").set_input_files(path)
    assert int(resumed.value.headers["upload-offset"]) > 0
    expect(page.locator(".jobs li", has_text=path.name).first).to_be_visible()
    expect(page.locator(".uploads li")).to_have_count(0)
    assert (
        page.evaluate("Object.keys(localStorage).filter((it) => it.startsWith('tus')).length") == 0
    )


def test_a_reload_while_the_job_runs(slow_site, visit):
    client = slow_site.client()
    data = {"keep_recording": "true", "metadata[test]": "reload"}
    job = client.post("/v1/jobs", files={"file": ("talk.wav", make_wav(600))}, data=data).json()[
        "id"
    ]
    page = visit(slow_site).tab(f"#job={job}")
    expect(page.locator("p.text").first).to_be_visible()
    page.reload()
    page.wait_for_selector("[data-ready]")
    assert n_lines(page) == len(stored(slow_site, job)["segments"])
    expect(page.locator(".state-succeeded")).to_be_visible()


def test_a_lost_connection_while_the_job_runs(slow_site, wire, visit):
    client = slow_site.client()
    data = {"keep_recording": "true", "metadata[test]": "lost"}
    job = client.post("/v1/jobs", files={"file": ("talk.wav", make_wav(1200))}, data=data).json()[
        "id"
    ]
    page = visit(f"http://127.0.0.1:{wire.port}").tab(f"#job={job}")
    asked = []
    page.on("request", lambda it: asked.append(it) if it.url.endswith("/events") else None)
    expect(page.locator("p.text").first).to_be_visible()
    wire.cut()
    expect(page.locator(".notice")).to_be_visible()
    wire.mend()
    expect(page.locator(".notice")).to_be_hidden()
    wait_for(lambda: client.get(f"/v1/jobs/{job}").json()["state"] == "succeeded", 60, "the end")
    page.wait_for_selector("[data-ready]")
    assert n_lines(page) == len(stored(slow_site, job)["segments"])
    assert int(asked[-1].headers["last-event-id"]) > 0


def test_edits_survive_a_lost_connection(slow_site, wire, visit):
    job = finished_job(slow_site, make_wav(4))
    page = visit(f"http://127.0.0.1:{wire.port}").job(job)
    wire.cut()
    edit(page, "word0", "written without a network")
    expect(page.locator(".save-state")).to_have_text("Offline, will be saved later")
    wire.mend()
    wait_saved(page)
    assert stored(slow_site, job)["segments"][0]["text"] == "written without a network"


@pytest.mark.parametrize("keep", ["mine", "theirs"])
def test_two_tabs_that_edit(site, visit, keep):
    job = finished_job(site, make_wav(9))
    save(site, job, [line(0, "first line"), line(2, "second line")])
    visitor = visit(site)
    one, two = visitor.job(job), visitor.job(job)
    edit(one, "first", "first line of one")
    wait_saved(one)
    edit(two, "second", "second line of two")
    box = two.get_by_role("dialog")
    expect(box).to_contain_text("first line of one")
    expect(box).to_contain_text("second line of two")
    box.get_by_role("button", name="Keep mine" if keep == "mine" else "Use theirs").click()
    wait_saved(two)
    texts = [it["text"] for it in stored(site, job)["segments"]]
    mine, theirs = ["first line", "second line of two"], ["first line of one", "second line"]
    assert texts == (mine if keep == "mine" else theirs)
    assert two.locator("p.text").all_inner_texts() == texts
    two.keyboard.press("Control+z")
    expect(two.locator("p.text").nth(1)).to_have_text(theirs[1] if keep == "mine" else mine[1])


def test_keys(visit, tmp_path):
    with serving(ASR_API_KEY="sesame") as site:
        visitor = visit(site)
        page = visitor.tab()
        box = page.get_by_role("dialog")
        key = box.get_by_label("Key", exact=True)
        key.fill("wrong")
        page.keyboard.press("Enter")
        expect(box.get_by_role("alert")).to_contain_text("does not know this key")
        key.fill("sesame")
        page.keyboard.press("Enter")
        expect(box).to_have_count(0)
        path = tmp_path / "private.wav"
        path.write_bytes(make_wav(3))
        drop(page, path)
        page.locator(".state-succeeded").wait_for()
        page.get_by_role("link", name="private.wav").click()
        page.wait_for_selector("[data-ready]")
        until(page, "document.querySelector('audio')?.readyState > 0")
        kept = page.evaluate(
            "[JSON.stringify(localStorage), location.href, document.cookie].join()"
        )
        assert "sesame" not in kept
        assert "sesame" not in "".join(
            page.evaluate("performance.getEntries().map((it) => it.name)")
        )
        assert page.evaluate("sessionStorage.getItem('asr-key')") == "sesame"
        other = visitor.tab()
        expect(other.get_by_role("dialog")).to_contain_text("needs a key")


def test_hostile_names_and_texts(site, visit, tmp_path):
    path = tmp_path / "talk.wav"
    path.write_bytes(make_wav(9))
    page = visit(site).tab()
    page.evaluate(
        """async ([name, bytes]) => {
          const data = new DataTransfer();
          data.items.add(new File([Uint8Array.from(bytes)], name));
          dispatchEvent(new DragEvent("drop", { dataTransfer: data, cancelable: true }));
        }""",
        [f"{HOSTILE}{RTL}.wav".replace("/", "_"), list(make_wav(9))],
    )
    row = page.locator(".jobs li", has_text="<img src=x onerror=").first
    expect(row.locator(".state-succeeded")).to_be_visible(timeout=30_000)
    job = site.client().get("/v1/jobs?limit=1").json()["data"][0]["id"]
    save(
        site,
        job,
        [
            line(0, HOSTILE, speaker="A", doubtful=["<img"], doubts=[HOSTILE]),
            line(3, f"{RTL} {HOSTILE}", speaker="B"),
        ],
        {"A": HOSTILE, "B": RTL},
    )
    row.get_by_role("link").click()
    page.wait_for_selector("[data-ready]")
    expect(page.locator("p.text").first).to_have_text(HOSTILE)
    expect(page.locator(".speaker").first).to_have_text(HOSTILE)
    assert page.locator("p.text").nth(1).evaluate("(it) => getComputedStyle(it).direction") in (
        "ltr",
        "rtl",
    )
    page.keyboard.press("n")
    expect(page.locator(".review .reason")).to_have_text(HOSTILE)
    edit(page, "onerror", f"{HOSTILE} again")
    wait_saved(page)
    page.locator(".speaker").first.click()
    expect(page.get_by_role("dialog")).to_contain_text("<img")
    page.keyboard.press("Escape")
    page.keyboard.press("Control+f")
    page.get_by_role("searchbox").fill("<script>")
    expect(page.locator(".find .count")).to_have_text("1 of 2")
    assert page.evaluate("window.pwned") is None
    assert page.locator("main img[src='x'], main script").count() == 0
    assert json.dumps(stored(site, job)["segments"][0]["text"]) == json.dumps(f"{HOSTILE} again")


def test_right_to_left_text_runs_right_to_left(site, visit):
    job = finished_job(site, make_wav(9))
    save(site, job, [line(0, RTL[1:]), line(3, "and English")])
    page = visit(site).job(job)
    direction = "(all) => all.map((it) => getComputedStyle(it).direction)"
    assert page.locator("p.text").evaluate_all(direction) == ["rtl", "ltr"]


def test_a_job_that_does_not_exist(site, visit):
    page = visit(site).tab("#job=" + "0" * 32)
    expect(page.locator("main")).to_contain_text("does not exist")
    page.get_by_role("link", name="All recordings").click()
    expect(page.locator(".drop")).to_be_visible()


def test_a_recording_that_was_not_kept(site, visit):
    job = finished_job(site, make_wav(4), keep_recording="false")
    page = visit(site).job(job)
    expect(page.locator(".wave")).to_contain_text("was not kept")
    edit(page, "word0", "it can still be corrected")
    wait_saved(page)


def test_a_file_that_is_no_recording(site, visit, tmp_path):
    path = tmp_path / "letter.wav"
    path.write_bytes(b"Dear Sir or Madam, " * 100)
    page = visit(site).tab()
    drop(page, path)
    row = page.locator(".jobs li", has_text="letter.wav")
    expect(row.locator(".state-failed")).to_be_visible(timeout=30_000)
    row.get_by_role("link").click()
    expect(page.locator(".notice.error")).to_be_visible()
