"""Edits that other changes overtake: late times, late answers, and lines that grow or overlap."""

import itertools

import pytest
from playwright.sync_api import expect

from tests.page.conftest import finished_job, line, save, stored
from tests.page.test_browser_editing import Held, act, texts_of
from tests.page.test_browser_path import edit, wait_saved
from tests.support.serving import make_wav, wait_for

pytestmark = [pytest.mark.page, pytest.mark.timeout(600)]


@pytest.fixture
def shown(site, visit):
    """Opens a job with these lines; returns its id and the page."""

    def make(*lines, seconds=20):
        job = finished_job(site, make_wav(seconds))
        save(site, job, list(lines))
        return job, visit(site).job(job)

    return make


def spread_over_the_room(page):
    """Answer each realign with words that take all the time that they may."""

    def answer(route):
        asked = route.request.post_data_json
        words = asked["text"].split()
        step = (asked["end"] - asked["start"]) / len(words)
        times = [asked["start"] + i * step for i in range(len(words) + 1)]
        found = [
            {"word": word, "start": times[i], "end": times[i + 1], "timing": "aligned"}
            for i, word in enumerate(words)
        ]
        route.fulfill(json={"words": found})

    page.route("**/realign", answer)


def wait_here(page, is_true, what):
    """As wait_for, but the answers of this test go on meanwhile."""

    def is_there():
        page.wait_for_timeout(30)
        return is_true()

    wait_for(is_there, 60, what)


def spans(site, job):
    return [(round(it["start"], 3), round(it["end"], 3)) for it in stored(site, job)["segments"]]


def words_of_last(site, job):
    return stored(site, job)["segments"][-1]["words"]


def replace_all(page, old, new):
    page.keyboard.press("Control+f")
    page.get_by_role("searchbox", name="Find").fill(old)
    page.get_by_label("Replace with").fill(new)
    page.get_by_role("button", name="Replace all").click()


def is_aligned(site, job):
    words = [word for it in stored(site, job)["segments"] for word in it["words"]]
    return all(word["timing"] == "aligned" for word in words)


@pytest.mark.parametrize(("is_cue", "gap"), [(False, 0), (True, 0.083)])
def test_neighbours_do_not_grow_into_one_another(site, shown, is_cue, gap):
    lines = [{**line(4 * i, "one two"), "line": is_cue} for i in range(3)]
    job, page = shown(*lines)
    spread_over_the_room(page)
    replace_all(page, "two", "two three")
    wait_here(page, lambda: texts_of(site, job)[2].endswith("three"), "the text")
    wait_here(page, lambda: is_aligned(site, job), "the times")
    found = spans(site, job)
    assert found[0][1] == pytest.approx(4 - gap), found
    assert all(b[0] - a[1] >= gap - 0.0015 for a, b in itertools.pairwise(found)), found


def test_a_line_that_was_written_meanwhile_keeps_its_time(site, shown):
    job, page = shown(line(0, "one"), line(6, "two"))
    held = Held(page, "**/realign")
    edit(page, "two", "zero two")
    held.wait()
    act(page, 0, "Add a line after")
    page.keyboard.type("new")
    page.keyboard.press("Enter")
    body = held.routes[0].request.post_data_json
    words = [
        {"word": it, "start": body["start"] + i, "end": body["start"] + i + 1, "timing": "aligned"}
        for i, it in enumerate(["zero", "two"])
    ]
    held.routes.pop(0).fulfill(json={"words": words})
    held.wait()
    held.release()
    wait_here(
        page,
        lambda: [it["timing"] for it in words_of_last(site, job)] == ["aligned"] * 2,
        "the times",
    )
    wait_saved(page)
    found = spans(site, job)
    assert all(b[0] >= a[1] for a, b in itertools.pairwise(found)), found


def test_a_line_is_split_beside_one_that_overlaps_it(site, shown):
    job, page = shown(line(0, "a b c d", seconds=8), line(1, "x"), line(2, "y"), line(9, "z"))
    page.locator("p.text").first.dblclick()
    page.locator("textarea.text").evaluate("(it) => it.setSelectionRange(6, 6)")
    page.keyboard.press("Control+Enter")
    page.keyboard.press("Escape")
    wait_saved(page)
    wait_here(
        page, lambda: texts_of(site, job) == ["a b c", "x", "y", "d", "z"], "both parts in order"
    )
    page.keyboard.press("Control+z")
    wait_here(page, lambda: texts_of(site, job) == ["a b c d", "x", "y", "z"], "the line")


def test_another_version_does_not_replace_a_line_that_was_opened_meanwhile(site, shown):
    job, page = shown(line(0, "one"), line(2, "two"))
    save(site, job, [line(0, "theirs"), line(2, "two")])
    held = Held(page, "**/transcript")
    page.evaluate("dispatchEvent(new Event('focus'))")
    held.wait()
    page.locator("p.text").first.dblclick()
    page.locator("textarea.text").fill("one changed")
    with page.expect_response("**/transcript"):
        held.release()
    page.evaluate("new Promise(requestAnimationFrame)")
    page.unroute("**/transcript")
    page.keyboard.press("Enter")
    expect(page.get_by_role("dialog")).to_contain_text("one changed")


def test_a_line_that_is_written_while_subtitles_are_cut_is_kept(site, shown):
    job, page = shown(line(0, "one"), line(2, "two."), line(6, "end"))
    held = Held(page, "**/transcript.srt*", times=1)
    page.get_by_role("button", name="Subtitles").click()
    held.wait()
    page.locator("p.text").last.dblclick()
    page.locator("textarea.text").fill("end changed")
    held.release()
    expect(page.locator(".row.cue").first).to_be_visible()
    expect(page.locator(".row.cue p.text").last).to_have_text("end changed")
    wait_saved(page)
    wait_here(page, lambda: texts_of(site, job)[-1] == "end changed", "the text")


def test_a_new_line_and_its_text_are_undone_together(shown):
    _, page = shown(line(0, "one"), line(6, "two"))
    act(page, 0, "Add a line after")
    page.keyboard.type("new")
    page.keyboard.press("Enter")
    expect(page.locator("p.text")).to_have_text(["one", "new", "two"])
    page.keyboard.press("Control+z")
    expect(page.locator("p.text")).to_have_text(["one", "two"])
    page.keyboard.press("Control+Shift+z")
    expect(page.locator("p.text")).to_have_text(["one", "new", "two"])
    act(page, 1, "Add a line after")
    page.keyboard.press("Escape")
    page.keyboard.press("Control+z")
    expect(page.locator("p.text")).to_have_text(["one", "two"])


def test_the_next_line_of_an_emptied_one_is_edited(shown):
    _, page = shown(line(0, "one"), line(2, "two"), line(4, "three"), line(6, "four"))
    page.locator("p.text").nth(2).dblclick()
    page.locator("textarea.text").fill("")
    page.keyboard.press("Control+ArrowDown")
    expect(page.locator("textarea.text")).to_have_value("four")
