"""The whole path: from a dropped file to corrected subtitles."""

import re

import pytest
from playwright.sync_api import expect

from tests.page.conftest import drop, finished_job, line, save, stored, until
from tests.support.serving import make_wav, wait_for

pytestmark = [pytest.mark.page, pytest.mark.timeout(600)]


def edit(page, text, fresh):
    """Double-click a line that has a text, and write another one."""
    page.locator("p.text", has_text=text).first.dblclick()
    page.locator("textarea.text").fill(fresh)
    page.keyboard.press("Enter")


def ask_for_clip(page, start, end):
    """Ask for a clip, and return the dialog."""
    page.get_by_role("button", name="Export").click()
    page.get_by_role("menuitem", name="Download a clip").click()
    box = page.get_by_role("dialog")
    box.get_by_label("From").fill(start)
    box.get_by_label("To").fill(end)
    box.get_by_role("button", name="Download").click()
    return box


def download(page, label):
    page.get_by_role("button", name="Export").click()
    with page.expect_download() as found:
        page.get_by_role("menuitem", name=label).click()
    return found.value


def wait_saved(page):
    expect(page.locator(".save-state")).to_have_text("Saved")


def test_from_drop_to_corrected_subtitles(site, visit, tmp_path):
    path = tmp_path / "first talk.wav"
    path.write_bytes(make_wav(6))
    other = tmp_path / "second talk.wav"
    other.write_bytes(make_wav(3))
    page = visit(site).tab()
    drop(page, path, other)
    for name in (path.name, other.name):
        row = page.locator(".jobs li", has_text=name)
        expect(row.locator(".state-succeeded")).to_be_visible(timeout=30_000)
    page.get_by_role("link", name=path.name).click()
    expect(page.locator("p.text").first).to_contain_text("word0 word1")
    page.wait_for_selector("[data-ready]")
    edit(page, "word0", page.locator("p.text").first.inner_text().replace("word1", "corrected"))
    wait_saved(page)
    file = download(page, "Subtitles (SRT)")
    assert file.suggested_filename == "first talk.srt"
    text = file.path().read_text()
    assert "corrected" in text
    assert "word1 " not in text.replace("\n", " ")
    assert re.search(r"00:00:00,\d{3} --> ", text)


@pytest.mark.parametrize(
    ("label", "expected"),
    [("WebVTT", "WEBVTT"), ("Plain text", "changed"), ("JSON", '"changed"'), ("TSV", "\t")],
)
def test_every_export_has_the_edits(site, visit, label, expected):
    job = finished_job(site, make_wav(4))
    page = visit(site).job(job)
    edit(page, "word0", "changed word1 word2")
    text = download(page, re.compile(label)).path().read_text()
    assert "changed" in text
    assert expected in text


def test_changed_words_only_get_new_times(site, visit):
    job = finished_job(site, make_wav(5))
    before = stored(site, job)["segments"][0]["words"]
    page = visit(site).job(job)
    edit(page, "word0", " ".join(["word0", "new", "words", *(it["word"] for it in before[2:])]))
    wait_saved(page)
    after = stored(site, job)["segments"][0]["words"]
    same = ("word", "start", "end")
    assert [[it[k] for k in same] for it in (after[0], *after[3:])] == [
        [it[k] for k in same] for it in (before[0], *before[2:])
    ]
    assert (
        before[1]["start"] - 0.01
        <= after[1]["start"]
        <= after[2]["end"]
        <= before[2]["start"] + 0.01
    )


def test_undo_redo_and_the_original(site, visit):
    job = finished_job(site, make_wav(4))
    page = visit(site).job(job)
    original = page.locator("p.text").first.inner_text()
    edit(page, "word0", "one edit")
    wait_saved(page)
    page.keyboard.press("Control+z")
    expect(page.locator("p.text").first).to_have_text(original)
    page.keyboard.press("Control+Shift+z")
    expect(page.locator("p.text").first).to_have_text("one edit")
    wait_saved(page)
    page.get_by_role("button", name="More").click()
    page.get_by_role("menuitem", name="Restore the original").click()
    page.get_by_role("dialog").get_by_role("button", name="Restore").click()
    expect(page.locator("p.text").first).to_have_text(original)
    wait_for(lambda: not stored(site, job)["edited"], 20, "the original")


def test_split_and_join(site, visit):
    job = finished_job(site, make_wav(4))
    page = visit(site).job(job)
    page.locator("p.text").first.dblclick()
    area = page.locator("textarea.text")
    area.evaluate("(it) => it.setSelectionRange(12, 12)")
    page.keyboard.press("Control+Enter")
    expect(page.locator("textarea.text")).to_have_value(re.compile("^word2"))
    page.keyboard.press("Escape")
    expect(page.locator("p.text").first).to_have_text("word0 word1")
    page.locator("p.text").nth(1).dblclick()
    page.locator("textarea.text").evaluate("(it) => it.setSelectionRange(0, 0)")
    page.keyboard.press("Backspace")
    page.keyboard.press("Enter")
    expect(page.locator("p.text").first).to_contain_text("word0 word1 word2")
    wait_saved(page)
    words = stored(site, job)["segments"][0]["words"]
    assert [it["word"] for it in words] == [f"word{i}" for i in range(len(words))]


def test_speakers_are_renamed_everywhere(site, visit):
    job = finished_job(site, make_wav(9))
    lines = [line(i * 2, f"line {i}", speaker="AB"[i % 2]) for i in range(4)]
    save(site, job, lines, {"B": "Bob"})
    page = visit(site).job(job)
    expect(page.locator(".speaker").nth(1)).to_have_text("Bob")
    page.locator(".speaker").first.click()
    page.get_by_role("dialog").get_by_label("Name").fill("Anna")
    page.keyboard.press("Enter")
    expect(page.locator(".speaker")).to_have_text(["Anna", "Bob", "Anna", "Bob"])
    wait_saved(page)
    assert stored(site, job)["speakers"] == {"A": "Anna", "B": "Bob"}
    assert "Anna" in download(page, "Subtitles (WebVTT)").path().read_text()


def test_review_of_doubts(site, visit):
    job = finished_job(site, make_wav(9))
    why = ["1 word cannot be heard"]
    save(
        site,
        job,
        [
            line(0, "all is fine"),
            line(2, "this is odd", doubtful=["odd"], doubts=why),
            line(4, "strange and more", doubtful=["strange"], doubts=why),
        ],
    )
    page = visit(site).job(job)
    count = page.locator(".review .count")
    expect(count).to_have_text("2 doubtful places")
    page.keyboard.press("n")
    expect(count).to_have_text("Doubt 1 of 2")
    expect(page.locator(".review .reason")).to_have_text(why[0])
    page.keyboard.press("a")
    expect(count).to_have_text("Doubt 1 of 1")
    page.keyboard.press("e")
    area = page.locator("textarea.text")
    chosen = area.evaluate("(it) => it.value.slice(it.selectionStart, it.selectionEnd)")
    assert chosen == "strange"
    page.keyboard.type("stranger")
    page.keyboard.press("Enter")
    expect(count).to_have_text("No doubts left")
    wait_saved(page)
    segments = stored(site, job)["segments"]
    assert not any(word["doubtful"] for it in segments for word in it["words"])
    assert not any(it["doubts"] for it in segments)
    assert segments[2]["text"] == "stranger and more"


def test_find_and_replace(site, visit):
    job = finished_job(site, make_wav(9))
    save(site, job, [line(0, "Cat (cat) concat"), line(2, "no match"), line(4, "a CAT.")])
    page = visit(site).job(job)
    page.keyboard.press("Control+f")
    page.get_by_role("searchbox", name="Find").fill("cat")
    count = page.locator(".find .count")
    expect(count).to_have_text(re.compile("of 4"))
    page.get_by_label("Whole words").check()
    expect(count).to_have_text(re.compile("of 3"))
    page.get_by_label("Match case").check()
    expect(count).to_have_text("1 of 1")
    page.get_by_label("Match case").uncheck()
    page.get_by_label("Replace with").fill("$& dog")
    page.get_by_role("button", name="Replace all").click()
    expect(page.locator("p.text").first).to_have_text("$& dog ($& dog) concat")
    expect(page.locator("p.text").nth(2)).to_have_text("a $& dog.")
    page.locator(".toast").get_by_role("button", name="Undo").click()
    expect(page.locator("p.text").first).to_have_text("Cat (cat) concat")


def test_a_click_on_a_word_seeks_and_the_place_is_remembered(site, visit):
    job = finished_job(site, make_wav(9))
    save(site, job, [line(0, "one two three four"), line(4, "five six seven eight")])
    visitor = visit(site)
    page = visitor.job(job)
    until(page, "document.querySelector('audio')?.readyState > 0")
    box = page.evaluate(
        """() => {
          const node = document.querySelectorAll("p.text")[1].firstChild;
          const range = document.createRange();
          range.setStart(node, 9); range.setEnd(node, 14);
          const { x, y, width, height } = range.getBoundingClientRect();
          return [x + width / 2, y + height / 2];
        }"""
    )
    page.mouse.click(*box)
    until(page, "Math.abs(document.querySelector('audio')?.currentTime - 5) < 0.05")
    current = """() => [...CSS.highlights.get("current")].map(
      (it) => it.startContainer.data.slice(it.startOffset, it.endOffset))"""
    assert page.evaluate(current) == ["seven"]
    again = visitor.job(job)
    expect(again.locator(".times .now")).to_have_text("0:05")
    moment = visitor.job(job, "&t=1.2")
    expect(moment.locator(".times .now")).to_have_text("0:01")


def test_a_clip_of_a_span(site, visit):
    job = finished_job(site, make_wav(9))
    page = visit(site).job(job)
    box = ask_for_clip(page, "0:02", "0:01")
    expect(box.get_by_role("alert")).to_have_text("The clip must end after it begins.")
    box.get_by_label("To").fill("0:04.5")
    box.get_by_label("Format").select_option("wav")
    with page.expect_download() as found:
        box.get_by_role("button", name="Download").click()
    assert found.value.path().stat().st_size == pytest.approx(2.5 * 32_000, rel=0.05)


def test_subtitles_show_what_breaks_the_rules(site, visit):
    job = finished_job(site, make_wav(30))
    page = visit(site).job(job)
    page.get_by_role("button", name="Subtitles").click()
    expect(page.locator(".row.cue").first).to_be_visible()
    expect(page.locator(".problems .chip")).to_have_count(0)
    page.locator("p.text").first.dblclick()
    page.locator("textarea.text").fill("word0 " + "very " * 12 + "long")
    expect(page.locator(".problems .chip").first).to_contain_text("wide")
    page.keyboard.press("Escape")
    expect(page.locator(".problems .chip")).to_have_count(0)
    wait_saved(page)
    cues = download(page, "Subtitles (SRT)").path().read_text()
    segments = stored(site, job)["segments"]
    assert all(segment["line"] for segment in segments)
    assert [block.split("\n", 2)[2].strip() for block in cues.strip().split("\n\n")] == [
        segment["text"] for segment in segments
    ]
    page.keyboard.press("Control+z")
    expect(page.locator(".row.cue")).to_have_count(0)


def test_delete_asks_first(site, visit):
    job = finished_job(site, make_wav(2))
    page = visit(site).job(job)
    for answer, status in (("Cancel", 200), ("Delete", 404)):
        page.get_by_role("button", name="More").click()
        page.get_by_role("menuitem", name="Delete").click()
        page.get_by_role("dialog").get_by_role("button", name=answer).click()
        expect(page.get_by_role("dialog")).to_have_count(0)
        if answer == "Delete":
            expect(page.locator(".drop")).to_be_visible()
        assert site.client().get(f"/v1/jobs/{job}").status_code == status
