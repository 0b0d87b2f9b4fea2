"""Edits that meet something else: late times, other tabs, refused saves, overlapping lines."""

import json
import re

import pytest
from playwright.sync_api import expect

from tests.page.conftest import finished_job, line, save, stored, until
from tests.page.test_browser_path import ask_for_clip, download, edit, wait_saved
from tests.support.serving import make_wav, wait_for

pytestmark = [pytest.mark.page, pytest.mark.timeout(600)]
MEDIA = "navigator.mediaDevices"


@pytest.fixture
def opened(site, visit):
    """Opens a job with lines of two seconds; returns its id and the page."""

    def make(*texts, seconds=None, **fields):
        job = finished_job(site, make_wav(seconds or 2 * len(texts) + 1))
        save(site, job, [line(2 * i, text) for i, text in enumerate(texts)], **fields)
        return job, visit(site).job(job)

    return make


class Held:
    """Requests that are answered later."""

    def __init__(self, page, url, times=None):
        self.routes = []
        page.route(url, lambda route: self.routes.append(route), times=times)
        self._page = page

    def wait(self, n=1):
        until(self._page, "true")
        while len(self.routes) < n:
            self._page.wait_for_timeout(30)

    def release(self):
        for route in self.routes:
            route.continue_()
        self.routes.clear()


def texts_of(site, job):
    return [it["text"] for it in stored(site, job)["segments"]]


def act(page, n, name):
    """Choose an action in the menu of a line."""
    page.locator(".row").nth(n).hover()
    page.locator(".row .more").nth(n).click()
    page.get_by_role("menuitem", name=name).click()


@pytest.mark.parametrize(
    ("action", "left"),
    [
        ("Delete the line", ["one", "three"]),
        ("Join with the next line", ["one", "two changed three"]),
        ("End at", ["one", "two changed", "three"]),
    ],
)
def test_a_menu_that_was_open_when_the_times_came(site, opened, action, left):
    job, page = opened("one", "two", "three")
    page.keyboard.press("g")
    page.get_by_label("Time", exact=True).fill("0:03.5")
    page.keyboard.press("Enter")
    held = Held(page, "**/realign")
    edit(page, "two", "two changed")
    held.wait()
    page.locator(".row").nth(1).hover()
    page.locator(".row .more").nth(1).click()
    with page.expect_response("**/realign"):
        held.release()
    wait_saved(page)
    page.get_by_role("menuitem", name=action).click()
    expect(page.locator("p.text")).to_have_text(left)
    wait_saved(page)
    assert texts_of(site, job) == left


def test_times_that_come_after_the_view_was_left_are_no_conflict(site, opened):
    job, page = opened("one", "two")
    held = Held(page, "**/realign")
    edit(page, "one", "one changed")
    held.wait()
    page.get_by_role("link", name="All recordings").click()
    expect(page.locator(".drop")).to_be_visible()
    held.release()
    page.evaluate(f"location.hash = 'job={job}'")
    edit(page, "two", "two changed")
    wait_for(lambda: texts_of(site, job) == ["one changed", "two changed"], 60, "both edits")
    expect(page.get_by_role("dialog")).to_have_count(0)


def test_words_of_an_earlier_edit_are_aligned_with_those_of_the_next(opened):
    _, page = opened("one two three four")
    held = Held(page, "**/realign")
    edit(page, "one", "one TWO three four")
    held.wait()
    edit(page, "one", "one TWO three five")
    with page.expect_request("**/realign") as second:
        held.release()
    sent = second.value.post_data_json
    assert [it["word"] for it in sent["words"]] == ["one", "three", "four"]
    assert sent["text"] == "one TWO three five"


def test_changed_words_of_a_split_line_are_aligned(opened):
    _, page = opened("one two three four")
    held = Held(page, "**/realign")
    page.locator("p.text").first.dblclick()
    area = page.locator("textarea.text")
    area.fill("one five three four")
    area.evaluate("(it) => it.setSelectionRange(9, 9)")
    page.keyboard.press("Control+Enter")
    held.wait()
    with page.expect_request("**/realign") as second:
        held.release()
    assert second.value.post_data_json["text"] == "one five"
    assert [it["word"] for it in second.value.post_data_json["words"]] == ["one"]


def test_words_are_aligned_when_the_service_is_back(opened):
    _, page = opened("one two")
    page.route("**/realign", lambda route: route.abort())
    with page.expect_event("requestfailed"):
        edit(page, "one", "one three")
    wait_saved(page)
    page.unroute("**/realign")
    with page.expect_response("**/realign") as answer:
        page.evaluate("dispatchEvent(new Event('online'))")
    assert answer.value.json()["words"][1]["word"] == "three"


def test_all_replaced_lines_are_aligned(site, visit):
    job = finished_job(site, make_wav(430))
    save(site, job, [line(2 * i, f"cat {i}") for i in range(210)])
    page = visit(site).job(job)
    asked = []
    page.on("request", lambda it: asked.append(it) if it.url.endswith("/realign") else None)
    page.keyboard.press("Control+f")
    page.get_by_role("searchbox", name="Find").fill("cat")
    page.get_by_label("Replace with").fill("dog")
    page.get_by_role("button", name="Replace all").click()
    wait_for(lambda: texts_of(site, job)[209] == "dog 209", 60, "the texts")
    deadline = 2000
    while len(asked) < 210 and deadline:
        page.wait_for_timeout(30)
        deadline -= 1
    assert len({it.post_data for it in asked}) == 210
    wait_saved(page)


def test_a_replaced_place_is_not_found_again(opened):
    _, page = opened("a cat and a cat", "one more cat")
    page.keyboard.press("Control+f")
    page.get_by_role("searchbox", name="Find").fill("cat")
    page.get_by_label("Replace with").fill("cats")
    for expected in (
        ["a cats and a cat", "one more cat"],
        ["a cats and a cats", "one more cat"],
        ["a cats and a cats", "one more cats"],
    ):
        page.get_by_role("button", name="Replace", exact=True).click()
        expect(page.locator("p.text")).to_have_text(expected)


def test_overlapping_lines_can_be_joined_and_moved(site, visit):
    job = finished_job(site, make_wav(9))
    lines = [line(0, "one two three", seconds=4), line(1, "four five six", seconds=4)]
    save(site, job, [*lines, line(6, "the end")])
    page = visit(site).job(job, "&t=3")
    act(page, 0, "Start at 0:03")
    wait_saved(page)
    starts = [it["start"] for it in stored(site, job)["segments"]]
    assert starts == sorted(starts)
    page.keyboard.press("Control+z")
    act(page, 0, "Join with the next line")
    expect(page.locator("p.text").first).to_have_text("one two three four five six")
    wait_for(lambda: len(texts_of(site, job)) == 2, 60, "the joined line")
    wait_saved(page)


@pytest.mark.parametrize(
    ("written", "text"),
    [
        ("a\\u0007b \\u0000c\\u0085d", "ab cd"),
        ("\\ud800 half", "\ufffd half"),
        ("x".join([""] * 2600), "x" * 2599),
        ("\\u{1f469}\\u200d\\u{1f680} e\\u0301", "\U0001f469\u200d\U0001f680 e\u0301"),
    ],
)
def test_what_the_service_would_refuse_is_cleaned(site, opened, written, text):
    job, page = opened("one", "two")
    page.locator("p.text").first.dblclick()
    page.locator("textarea.text").evaluate(f'(it) => {{ it.value = "{written}"; }}')
    page.keyboard.press("Enter")
    wait_saved(page)
    assert texts_of(site, job) == [text, "two"]


@pytest.mark.parametrize("key", ["Escape", "Enter"])
def test_a_new_line_without_text_is_removed(site, opened, key):
    job, page = opened("one", "two", seconds=9)
    act(page, 1, "Add a line after")
    expect(page.locator("textarea.text")).to_be_focused()
    page.keyboard.press(key)
    expect(page.locator("p.text")).to_have_text(["one", "two"])
    until(page, "document.activeElement.matches('p.text')")
    act(page, 1, "Add a line after")
    page.keyboard.type("three")
    page.keyboard.press("Enter")
    wait_for(lambda: texts_of(site, job) == ["one", "two", "three"], 60, "the line")


def test_lines_without_words_are_cut_into_subtitles_too(site, visit):
    job = finished_job(site, make_wav(7))
    save(site, job, [line(0, "one"), {**line(2, "two without words"), "words": []}, line(4, "x")])
    page = visit(site).job(job)
    page.get_by_role("button", name="Subtitles").click()
    expect(page.locator(".row.cue p.text")).to_have_text(["one two without words x"])


def test_a_speaker_with_the_name_of_another_one_is_this_one(site, visit):
    job = finished_job(site, make_wav(7))
    lines = [line(2 * i, "text", speaker=it) for i, it in enumerate("ABC")]
    save(site, job, lines, {"A": "Anna"})
    page = visit(site).job(job)
    page.locator(".speaker").nth(1).click()
    page.get_by_label("Name", exact=True).fill("Anna")
    page.get_by_role("button", name="Save", exact=True).click()
    expect(page.locator(".speaker")).to_have_text(["Anna", "Speaker C"])
    wait_saved(page)
    assert [it["speaker"] for it in stored(site, job)["segments"]] == ["A", "A", "C"]
    page.keyboard.press("Control+z")
    expect(page.locator(".speaker")).to_have_text(["Anna", "Speaker B", "Speaker C"])


def test_the_keyboard_keeps_its_place_in_the_transcript(opened):
    _, page = opened("one", "two", "three")
    focus = "document.activeElement.closest('.row')?.querySelector('p.text').textContent"
    act(page, 1, "Delete the line")
    until(page, f"{focus} === 'three'")
    page.keyboard.press("e")
    page.locator("textarea.text").fill("")
    page.keyboard.press("Backspace")
    expect(page.locator("p.text")).to_have_text(["one"])
    until(page, f"{focus} === 'one'")
    page.keyboard.press("ArrowRight")
    act(page, 0, "End at 0:05")
    until(page, f"{focus} === 'one'")


def test_a_refused_clip_is_explained_in_its_dialog(opened):
    _, page = opened("one", "two")
    box = ask_for_clip(page, "1:00", "1:05")
    expect(box.get_by_role("alert")).to_contain_text("the recording has 5.000 s")
    box.get_by_label("From").fill("0:01")
    box.get_by_label("To").fill("0:02")
    with page.expect_download():
        box.get_by_role("button", name="Download").click()
    expect(box).to_have_count(0)


@pytest.mark.parametrize("looks", [True, False])
def test_what_another_tab_saved_is_shown_and_exported(site, opened, looks):
    job, page = opened("one", "two")
    edit(page, "one", "one of mine")
    wait_saved(page)
    save(site, job, [line(0, "theirs"), line(2, "two")], {"A": "Anna"})
    if looks:
        page.evaluate("dispatchEvent(new Event('focus'))")  # as when the tab is chosen again
        expect(page.locator("p.text").first).to_have_text("theirs")
    assert "theirs" in download(page, "Plain text").path().read_text()
    expect(page.locator("p.text").first).to_have_text("theirs")
    page.keyboard.press("Control+z")
    expect(page.locator("p.text").first).to_have_text("one of mine")
    wait_for(lambda: texts_of(site, job)[0] == "one of mine", 60, "what was undone")
    wait_saved(page)
    with page.expect_response(lambda it: it.url.endswith("/transcript") and it.status == 304):
        page.evaluate("dispatchEvent(new Event('focus'))")
    expect(page.get_by_role("dialog")).to_have_count(0)


def test_a_line_that_is_being_written_is_not_replaced(site, opened):
    job, page = opened("one", "two")
    save(site, job, [line(0, "theirs"), line(2, "two")])
    page.locator("p.text").first.dblclick()
    page.locator("textarea.text").fill("one changed")
    page.evaluate("dispatchEvent(new Event('focus'))")
    page.keyboard.press("Enter")
    expect(page.get_by_role("dialog")).to_contain_text("one changed")


def test_refused_changes_are_not_lost_without_a_question(site, opened):
    job, page = opened("one", "two")
    refused = {"error": {"message": "not today", "code": "invalid_value"}}
    answer = {"status": 400, "body": json.dumps(refused), "content_type": "application/json"}
    page.route(
        "**/transcript",
        lambda it: it.fulfill(**answer) if it.request.method == "PUT" else it.continue_(),
    )
    edit(page, "one", "one changed")
    expect(page.locator(".save-state")).to_contain_text("Not saved")
    page.get_by_role("link", name="All recordings").click()
    box = page.get_by_role("dialog")
    expect(box).to_contain_text("not today")
    page.unroute("**/transcript")
    box.get_by_role("button", name="Try again").click()
    expect(page.locator(".drop")).to_be_visible()
    wait_for(lambda: texts_of(site, job)[0] == "one changed", 60, "the change")


def test_a_file_that_is_dropped_on_a_transcript_does_not_replace_the_page(opened):
    _, page = opened("one")
    options = "{ dataTransfer: new DataTransfer(), cancelable: true, bubbles: true }"
    for name in ("dragover", "drop"):
        event = f"new DragEvent('{name}', {options})"
        assert page.locator("p.text").first.evaluate(f"(it) => !it.dispatchEvent({event})")


# --- the microphone -------------------------------------------------------------------------------


def ask_for_the_microphone_later(page):
    """The browser asks whether the page may listen, and the person takes some time."""
    page.evaluate(
        f"""() => {{
          const get = {MEDIA}.getUserMedia.bind({MEDIA});
          const answer = new Promise((resolve) => {{ window.allow = resolve; }});
          window.asked = 0;
          window.streams = [];
          {MEDIA}.getUserMedia = async (wanted) => {{
            window.asked += 1;
            await answer;
            window.streams.push(await get(wanted));
            return window.streams.at(-1);
          }};
        }}"""
    )


@pytest.mark.parametrize(("hash_", "name"), [("", "Record"), ("#live", "Start")])
def test_the_microphone_is_off_if_the_view_was_left_before_it_was_allowed(site, visit, hash_, name):
    page = visit(site).tab(hash_)
    ask_for_the_microphone_later(page)
    page.get_by_role("button", name=name, exact=True).click()
    until(page, "asked === 1")
    if not hash_:
        page.get_by_role("button", name=name, exact=True).click()
    page.evaluate("location.hash = 'job=0123456789abcdef0123456789abcdef'")
    expect(page.get_by_text("does not exist")).to_be_visible()
    page.evaluate("allow()")
    until(page, "streams.length === 1 && streams[0].getTracks()[0].readyState === 'ended'")
    assert page.evaluate("asked") == 1


def test_live_text_stays_while_another_view_is_shown(site, visit):
    page = visit(site).tab("#live")
    page.get_by_role("button", name="Start").click()
    spoken = page.locator(".live-line .text", has_text=re.compile("word0"))
    expect(spoken.first).to_be_visible()
    page.get_by_role("link", name="Recordings").click()
    expect(page.locator(".drop")).to_be_visible()
    page.get_by_role("link", name="Live").click()
    expect(spoken.first).to_be_visible()
    expect(page.locator(".live-line.partial")).to_have_count(0)
    with page.expect_event("dialog") as asked:
        page.reload()
    assert asked.value.type == "beforeunload"


def test_live_text_is_not_replaced_without_a_question(site, visit):
    page = visit(site).tab("#live")
    start = page.get_by_role("button", name="Start", exact=True)
    start.click()
    spoken = page.locator(".live-line .text", has_text=re.compile("word0"))
    expect(spoken.first).to_be_visible()
    page.get_by_role("button", name="Stop").click()
    start.click()
    box = page.get_by_role("dialog")
    box.get_by_role("button", name="Cancel").click()
    expect(spoken.first).to_be_visible()
    page.get_by_role("button", name="Copy the text").click()
    start.click()
    expect(page.get_by_role("button", name="Stop")).to_be_visible()
    expect(box).to_have_count(0)


@pytest.mark.parametrize(
    ("changed", "place", "least", "most"),
    [
        ("two three four", -1, 4.0, 6.0),  # added at the end: no other line is there for 2 s
        ("zero two three", 0, 1.0, 2.0),  # at the start: the line before ends at 1.0 s
        ("two tree", -1, 3.0, 4.0),  # replaced: it was said within the line
    ],
)
def test_added_words_may_lie_beside_the_line(site, visit, changed, place, least, most):
    job = finished_job(site, make_wav(10))
    save(site, job, [line(0, "one", seconds=1.0), line(2, "two three"), line(6, "five")])
    page = visit(site).job(job)
    with page.expect_response("**/realign"):
        edit(page, "two three", changed)
    wait_saved(page)

    def is_timed():
        fresh = stored(site, job)["segments"][1]
        new = fresh["words"][place]
        return fresh["text"] == changed and least <= new["start"] < new["end"] <= most

    wait_for(is_timed, 60, "its time")
    fresh = stored(site, job)["segments"][1]
    new = fresh["words"].pop(place)
    assert (fresh["start"], fresh["end"]) == (min(2.0, new["start"]), max(4.0, new["end"]))
    spans = [(it["start"], it["end"]) for it in line(2, "two three")["words"]]
    assert [(it["start"], it["end"]) for it in fresh["words"]] == spans[: len(fresh["words"])]
