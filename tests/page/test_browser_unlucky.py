"""What can go wrong around the page: storage, lost connections, keys, clocks, other tabs."""

import re

import pytest
from playwright.sync_api import expect

from tests.page.conftest import drop, finished_job, line, save, stored, until
from tests.page.test_browser_path import download, edit, wait_saved
from tests.support.inprocess import serving
from tests.support.serving import make_wav, wait_for
from tests.support.wire import Wire

pytestmark = [pytest.mark.page, pytest.mark.timeout(600)]
NO_STORAGE = """
for (const name of ["localStorage", "sessionStorage"])
  Object.defineProperty(globalThis, name, { get() {
    throw new DOMException("Access is denied for this document.", "SecurityError");
  } });
"""
READY = "document.querySelector('audio')?.readyState > 0"


@pytest.fixture
def wire(site):
    """A connection that a test may cut."""
    made = Wire(int(site.url.rpartition(":")[2]))
    yield made
    made.close()


def test_a_browser_that_stores_nothing(visit, tmp_path):
    path = tmp_path / "private.wav"
    path.write_bytes(make_wav(3))
    with serving(ASR_API_KEY="sesame") as site:
        visitor = visit(site)
        visitor.context.add_init_script(NO_STORAGE)
        page = visitor.tab()
        page.get_by_role("dialog").get_by_label("Key", exact=True).fill("sesame")
        page.keyboard.press("Enter")
        page.get_by_text("Options", exact=True).click()
        page.get_by_label("Channels").select_option("split")
        with page.expect_request(lambda it: it.method == "POST" and "/v1/jobs" in it.url) as sent:
            drop(page, path)
        assert b'name="channels"\r\n\r\nsplit' in sent.value.post_data_buffer
        page.locator(".state-succeeded").wait_for()
        page.get_by_role("link", name=path.name).click()
        page.wait_for_selector("[data-ready]")
        page.get_by_label("Dark or light").click()
        assert page.evaluate("document.documentElement.dataset.theme") == "dark"


def test_playing_goes_on_when_the_service_is_back(site, wire, visit):
    job = finished_job(site, make_wav(60))
    page = visit(f"http://127.0.0.1:{wire.port}").job(job)
    until(page, READY)
    wire.cut()
    page.evaluate("document.querySelector('audio').dispatchEvent(new Event('error'))")
    page.keyboard.press("g")
    page.get_by_label("Time", exact=True).fill("0:30")
    page.keyboard.press("Enter")
    page.wait_for_timeout(1500)  # several attempts fail
    wire.mend()
    until(page, f"{READY} && Math.abs(document.querySelector('audio')?.currentTime - 30) < 0.1")
    page.keyboard.press(" ")
    until(page, "document.querySelector('audio').currentTime > 30.2")


def test_a_job_that_is_opened_while_the_service_is_away(site, wire, visit):
    job = finished_job(site, make_wav(5))
    page = visit(f"http://127.0.0.1:{wire.port}").tab()
    expect(page.locator(".jobs li").first).to_be_visible()
    wire.cut()
    page.evaluate(f"location.hash = 'job={job}'")
    expect(page.get_by_role("button", name="Try again")).to_be_visible()
    wire.mend()
    page.get_by_role("button", name="Try again").click()
    until(page, READY)


def test_edits_are_saved_after_the_view_was_left_without_a_connection(site, wire, visit):
    job = finished_job(site, make_wav(4))
    page = visit(f"http://127.0.0.1:{wire.port}").job(job)
    wire.cut()
    edit(page, "word0", "written while offline")
    expect(page.locator(".save-state")).to_contain_text("Offline")
    page.get_by_role("link", name="All recordings").click()
    expect(page.locator(".drop")).to_be_visible()
    expect(page.locator(".toast", has_text="saved when the connection is back")).to_be_visible()
    wire.mend()
    wait_for(lambda: stored(site, job)["edited"], 60, "the edit")
    assert stored(site, job)["segments"][0]["text"] == "written while offline"


def test_a_conflict_is_decided_before_the_view_is_left(site, visit):
    job = finished_job(site, make_wav(4))
    page = visit(site).job(job)
    save(site, job, [line(0, "theirs")])
    edit(page, "word0", "mine")
    page.get_by_role("dialog").get_by_role("button", name="Decide later").click()
    expect(page.locator(".save-state")).to_contain_text("Conflict")
    page.get_by_role("link", name="All recordings").click()
    page.get_by_role("dialog").get_by_role("button", name="Keep mine").click()
    expect(page.locator(".drop")).to_be_visible()
    wait_for(lambda: stored(site, job)["segments"][0]["text"] == "mine", 20, "the choice")


def test_a_job_that_is_deleted_in_another_tab(site, visit):
    job = finished_job(site, make_wav(4))
    page = visit(site).job(job)
    assert site.client().delete(f"/v1/jobs/{job}").status_code == 200
    edit(page, "word0", "too late")
    expect(page.locator(".save-state")).to_contain_text("Not saved")
    expect(page.locator(".toast.error", has_text="could not be saved")).to_be_visible()
    expect(page.locator("p.text").first).to_have_text("too late")


def test_a_revoked_key_is_asked_for_once(visit):
    with serving(ASR_API_KEY="sesame") as site:
        visitor = visit(site)
        page = visitor.tab()
        dialog = page.get_by_role("dialog")
        dialog.get_by_label("Key", exact=True).fill("sesame")
        with (  # all that the first view asks for
            page.expect_response(lambda it: "/v1/models" in it.url and it.ok),
            page.expect_response(lambda it: "/v1/jobs" in it.url and it.ok),
        ):
            page.keyboard.press("Enter")
        expect(dialog).to_have_count(0)
        page.evaluate("sessionStorage.setItem('asr-key', 'revoked')")
        with page.expect_response(lambda it: "/v1/jobs" in it.url and it.status == 401):
            page.evaluate("dispatchEvent(new Event('online'))")  # the list asks by itself
        expect(dialog).to_have_count(0)
        page.get_by_label("Search recordings").fill("x")
        expect(dialog).to_have_count(1)
        page.keyboard.press("Escape")


@pytest.mark.parametrize("hours", [-3, 3])
def test_a_wrong_clock(site, visit, hours):
    job = finished_job(site, make_wav(5))
    visitor = visit(site)
    now = f"const now = Date.now; Date.now = () => now() + {hours} * 3.6e6;"
    visitor.context.add_init_script(now)
    page = visitor.job(job)
    asked = []
    page.on("request", lambda it: asked.append(it.url) if "media_token" in it.url else None)
    until(page, READY)
    page.get_by_role("button", name="Spectrogram").click()
    expect(page.get_by_alt_text(re.compile("Mel spectrogram"))).to_be_visible()
    assert len(asked) <= 1


@pytest.mark.parametrize("moment", ["Infinity", "1e300", "-5", "NaN", "%00"])
def test_a_link_to_a_strange_moment(site, visit, moment):
    job = finished_job(site, make_wav(4))
    page = visit(site).job(job, f"&t={moment}")
    until(page, READY)
    expect(page.locator(".wave p")).to_have_count(0)


def test_paused_uploads_do_not_hold_the_others_up(site, visit, tmp_path):
    names = ["a.wav", "b.wav", "c.wav"]
    for i, name in enumerate(names):
        (tmp_path / name).write_bytes(make_wav(40 + i))
    visitor = visit(site)
    page = visitor.tab()
    network = visitor.context.new_cdp_session(page)
    slow = {"offline": False, "latency": 0, "downloadThroughput": -1, "uploadThroughput": 200_000}
    network.send("Network.enable")
    network.send("Network.emulateNetworkConditions", slow)
    drop(page, *(tmp_path / name for name in names))
    for name in names[:2]:
        page.get_by_role("button", name=f"Pause {name}").click()
    network.send("Network.emulateNetworkConditions", slow | {"uploadThroughput": -1})
    expect(page.locator(".jobs li", has_text="c.wav").first).to_be_visible()
    expect(page.locator(".uploads li")).to_have_count(2)
    for name in names[:2]:
        page.get_by_role("button", name=f"Continue {name}").click()
        expect(page.locator(".jobs li", has_text=name).first).to_be_visible()


def test_empty_files_are_named(site, visit, tmp_path):
    path = tmp_path / "nothing.wav"
    path.write_bytes(b"")
    page = visit(site).tab()
    drop(page, path)
    expect(page.locator(".toast.error")).to_contain_text("“nothing.wav” is empty")
    expect(page.locator(".uploads li")).to_have_count(0)


def test_an_empty_transcript_can_be_written(site, visit):
    job = finished_job(site, make_wav(4))
    save(site, job, [])
    page = visit(site).job(job)
    page.get_by_role("button", name="Write a line").click()
    page.locator("textarea.text").fill("now there is one")
    page.keyboard.press("Enter")
    expect(page.locator(".empty")).to_have_count(0)
    wait_saved(page)
    assert stored(site, job)["segments"][0]["text"] == "now there is one"


def test_a_double_click_edits_and_stays_where_it_was(site, visit):
    job = finished_job(site, make_wav(9))
    save(site, job, [line(0, "one two three"), line(4, "five six seven")])
    page = visit(site).job(job, "&t=1.0")
    until(page, READY)
    page.locator("p.text").nth(1).dblclick()
    expect(page.locator("textarea.text")).to_be_visible()
    assert page.evaluate("document.querySelector('audio').currentTime") == pytest.approx(1, abs=0.1)
    page.keyboard.press("Escape")
    page.locator("p.text").nth(1).click()
    until(page, "document.querySelector('audio').currentTime > 3.9")


def test_a_click_on_the_spectrogram_seeks(site, visit):
    job = finished_job(site, make_wav(20))
    page = visit(site).job(job)
    until(page, READY)
    page.get_by_role("button", name="Spectrogram").click()
    expect(page.get_by_alt_text(re.compile("Mel spectrogram"))).to_be_visible()
    box = page.locator(".spectrum").bounding_box()
    page.mouse.click(box["x"] + box["width"] / 2, box["y"] + 20)
    until(page, "Math.abs(document.querySelector('audio')?.currentTime - 10) < 0.2")
    cursor = page.locator(".spectrum > .cursor").bounding_box()
    assert cursor["x"] == pytest.approx(box["x"] + box["width"] / 2, abs=8)


def test_subtitles_of_two_channels_that_speak_at_once(site, visit):
    job = finished_job(site, make_wav(30))
    lines = [
        line(0, "channel two takes its time to say all of this", seconds=8, speaker="A"),
        line(1, "channel is what the other one says in between", seconds=6, speaker="B"),
    ]
    for number, one in enumerate(lines):
        one["channel"] = number
    save(site, job, lines, {"A": "channel", "B": "Bob"})
    page = visit(site).job(job)
    page.get_by_role("button", name="Subtitles").click()
    expect(page.locator(".row.cue").first).to_be_visible()
    wait_saved(page)
    segments = stored(site, job)["segments"]
    for speaker, one in zip("AB", lines, strict=True):
        own = [it["text"].replace("\n", " ") for it in segments if it["speaker"] == speaker]
        assert " ".join(own) == one["text"]
    text = download(page, "Subtitles (SRT)").path().read_text()
    assert re.search(r"^Bob:\s", text, re.MULTILINE)
    assert re.search(r"^channel:\s", text, re.MULTILINE)


def test_a_prefix_behind_a_proxy(visit, tmp_path):
    path = tmp_path / "behind a proxy.wav"
    path.write_bytes(make_wav(4))
    with serving(ASR_ROOT_PATH="/speech") as site:
        visitor = visit(site)
        page = visitor.tab("speech/")
        asked = []
        page.on("request", lambda it: asked.append(it.url))
        drop(page, path)
        page.locator(".state-succeeded").wait_for()
        page.get_by_role("link", name=path.name).click()
        page.wait_for_selector("[data-ready]")
        until(page, READY)
        edit(page, "word0", "corrected")
        wait_saved(page)
        assert "corrected" in download(page, "Plain text").path().read_text()
        others = [url for url in asked if not url.startswith((f"{site.url}/speech/", "blob:"))]
        assert others == []


def test_without_the_page_there_is_none(visit):
    with serving(ASR_PAGE="false") as site:
        answer = visit(site).context.request.get(f"{site.url}/")
        assert answer.status == 404
        assert answer.json()["error"]["message"]


LONG = "Donaudampfschifffahrtselektrizitätenhauptbetriebswerkbauunterbeamtengesellschaft" * 3


@pytest.mark.parametrize(
    ("text", "fresh"),
    [
        (LONG, f"{LONG} {LONG}"),
        ("今日は良い天気です。", "今日も良い天気です。"),
        ("שלום עולם טוב", "שלום לכולם"),
        ("สวัสดีครับผม", "สวัสดีค่ะ"),
        ("e\u0301te\u0301 \U0001f469\u200d\U0001f4bb vu", "\U0001f469\u200d\U0001f4bb"),
        ("a \u202eevil\u202c b", "a \u2066isolated b"),
    ],
)
def test_texts_of_all_kinds(site, visit, text, fresh):
    job = finished_job(site, make_wav(5))
    save(site, job, [line(0, text), line(3, "the next line")])
    page = visit(site, viewport={"width": 390, "height": 844}).job(job)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    box = page.locator("p.text").first.bounding_box()
    assert box["x"] + box["width"] <= 390
    page.locator("p.text").first.click()
    page.keyboard.press("e")
    page.locator("textarea.text").fill(fresh)
    page.keyboard.press("Enter")
    wait_saved(page)
    kept = stored(site, job)["segments"]
    assert [it["text"] for it in kept] == [
        page.locator("p.text").first.inner_text(),
        "the next line",
    ]
    assert "".join(it["word"] for it in kept[0]["words"]) == re.sub(r"\s", "", kept[0]["text"])
    page.get_by_role("button", name="Subtitles").click()
    expect(page.locator(".row.cue").first).to_be_visible()
    page.get_by_role("button", name="Text", exact=True).click()
    expect(page.locator(".row.cue")).to_have_count(0)


@pytest.mark.parametrize("able", [True, False])
def test_speakers_are_offered_if_the_service_tells_them_apart(site, visit, tmp_path, able):
    path = tmp_path / f"who is it {able}.wav"
    path.write_bytes(make_wav(3, amplitude=2000 + able))
    visitor = visit(site)
    client = site.client()
    models = client.get("/v1/models").json()
    models["data"][0]["capabilities"]["speakers"] = able
    visitor.context.route("**/v1/models", lambda route: route.fulfill(json=models))
    page = visitor.tab()
    page.get_by_text("Options", exact=True).click()
    expect(page.get_by_label("Speakers", exact=True)).to_have_count(int(able))
    page.context.route("**/v1/jobs", lambda route: route.abort())
    with page.expect_request(lambda it: it.method == "POST" and it.url.endswith("jobs")) as sent:
        drop(page, path)
    assert (b'name="speakers"\r\n\r\nauto' in sent.value.post_data_buffer) == able
