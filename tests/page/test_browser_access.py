"""Accessibility: axe-core, the keyboard alone, a phone, and a transcript of ten hours."""

import pytest
from playwright.sync_api import expect

from tests.page.conftest import finished_job, lengthen, line, save, stored, until
from tests.page.test_browser_path import wait_saved
from tests.support.paths import ROOT
from tests.support.serving import make_wav

pytestmark = [pytest.mark.page, pytest.mark.timeout(600)]
AXE = ROOT / "build/axe/node_modules/axe-core/axe.min.js"
TAGS = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]


@pytest.fixture(scope="module")
def axe():
    """The source of axe-core; `make test-page` fetches it."""
    assert AXE.exists(), f"{AXE} is missing: run make test-page"
    return AXE.read_text()


def check(page, axe):
    """axe-core must find nothing on the page as it is now."""
    page.evaluate(axe)
    rules = {"runOnly": {"type": "tag", "values": TAGS}}
    found = page.evaluate("(rules) => axe.run(document, rules)", rules)
    assert found["passes"]
    assert [[it["id"], [node["html"] for node in it["nodes"]]] for it in found["violations"]] == []


@pytest.fixture(scope="module")
def rich_job(site):
    """A transcript with speakers and doubts."""
    job = finished_job(site, make_wav(12))
    why = ["1 word cannot be heard"]
    save(
        site,
        job,
        [
            line(0, "good morning", speaker="A"),
            line(2, "a strange word", speaker="B", doubtful=["strange"], doubts=why),
            line(4, "and then more of it", speaker="B"),
        ],
        {"A": "Anna"},
    )
    return job


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing(site, visit, axe, rich_job, scheme):
    visitor = visit(site, color_scheme=scheme)
    page = visitor.tab()
    page.locator(".jobs li").first.wait_for()
    page.locator(".options summary").click()
    check(page, axe)
    page.get_by_role("button", name="Delete").first.click()
    check(page, axe)
    page.keyboard.press("Escape")
    page.goto(f"{site.url}/#live")
    page.get_by_role("button", name="Start").wait_for()
    check(page, axe)
    page = visitor.job(rich_job)
    page.locator(".wave canvas").first.wait_for(state="attached")
    check(page, axe)
    page.keyboard.press("n")
    page.keyboard.press("e")
    check(page, axe)
    page.keyboard.press("Escape")
    page.keyboard.press("Control+f")
    page.get_by_role("searchbox").fill("o")
    check(page, axe)
    page.keyboard.press("Escape")
    page.keyboard.press("?")
    check(page, axe)
    page.keyboard.press("Escape")
    page.get_by_role("button", name="Export").click()
    check(page, axe)
    page.keyboard.press("Escape")
    page.locator(".speaker").first.click()
    check(page, axe)
    page.keyboard.press("Escape")
    page.get_by_role("button", name="Subtitles").click()
    page.locator(".row.cue").first.wait_for()
    check(page, axe)


def test_axe_finds_nothing_on_messages_and_failures(site, visit, axe, rich_job):
    visitor = visit(site)
    page = visitor.tab()
    empty = {"name": "empty.wav", "mimeType": "audio/wav", "buffer": b""}
    page.locator("input[type=file]").set_input_files([empty])
    page.locator(".toast").wait_for()
    check(page, axe)
    page = visitor.tab("#job=" + "0" * 32)
    page.locator(".failed").wait_for()
    check(page, axe)
    page = visitor.job(rich_job)
    page.evaluate(
        "() => { const text = document.querySelector('p.text').firstChild;"
        " getSelection().setBaseAndExtent(text, 0, text, 9); }"
    )
    page.locator(".bubble").wait_for()
    check(page, axe)
    page.get_by_role("button", name="More").click()
    check(page, axe)


def test_axe_finds_nothing_on_a_phone(site, visit, axe, rich_job):
    visitor = visit(site, viewport={"width": 360, "height": 740}, has_touch=True, is_mobile=True)
    page = visitor.tab()
    page.locator(".jobs li").first.wait_for()
    check(page, axe)
    page = visitor.job(rich_job)
    check(page, axe)


def test_the_whole_path_with_the_keyboard_alone(site, visit, tmp_path):
    path = tmp_path / "keyboard.wav"
    path.write_bytes(make_wav(5))
    page = visit(site).tab()
    page.locator(".jobs li, .empty").first.wait_for()
    with page.expect_file_chooser() as chooser:
        tab_to(page, "Choose files")
        page.keyboard.press("Enter")
    chooser.value.set_files(path)
    page.locator(".jobs li", has_text=path.name).locator(".state-succeeded").wait_for()
    tab_to(page, path.name)
    page.keyboard.press("Enter")
    page.wait_for_selector("[data-ready]")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("e")
    page.keyboard.press("Home")
    page.keyboard.type("typed ")
    page.keyboard.press("Enter")
    expect(page.locator("p.text:focus")).to_contain_text("typed word")
    wait_saved(page)
    until(page, "document.querySelector('audio')?.readyState > 0")
    page.keyboard.press("l")
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("Space")
    until(page, "!document.querySelector('audio').paused || document.querySelector('audio').ended")
    page.keyboard.press("k")
    page.keyboard.press("g")
    page.keyboard.press("Control+a")
    page.keyboard.type("0:02")
    page.keyboard.press("Enter")
    expect(page.locator(".times .now")).to_have_text("0:02")
    tab_to(page, "Export", back=True)
    page.keyboard.press("Enter")
    with page.expect_download() as found:
        page.keyboard.press("Enter")
    assert "typed" in found.value.path().read_text()
    expect(page.get_by_role("button", name="Export")).to_be_focused()


def tab_to(page, name, *, back=False):
    """Press Tab until the element with a name has the focus, as a person would."""
    named = (
        "(document.activeElement.getAttribute('aria-label') ?? document.activeElement.textContent)"
    )
    for _ in range(60):
        page.keyboard.press("Shift+Tab" if back else "Tab")
        if name in page.evaluate(named):
            assert page.evaluate("document.activeElement.matches(':focus-visible')")
            return
    raise AssertionError(f"Tab does not reach {name}")


def test_single_keys_can_be_turned_off(site, visit, rich_job):
    page = visit(site).job(rich_job)
    page.keyboard.press("?")
    page.get_by_label("Shortcuts without Ctrl").uncheck()
    page.keyboard.press("Escape")
    page.keyboard.press("n")
    expect(page.locator(".review .count")).to_have_text("1 doubtful place")
    page.keyboard.press("Control+f")
    expect(page.get_by_role("searchbox")).to_be_focused()


def test_a_phone(site, visit):
    job = finished_job(site, make_wav(60))
    visitor = visit(site, viewport={"width": 360, "height": 740}, has_touch=True, is_mobile=True)
    for page in (visitor.tab(), visitor.job(job), visitor.tab("#live")):
        page.locator("main h1").first.wait_for(state="attached")
        assert page.evaluate("document.documentElement.scrollWidth") <= 360
    page = visitor.job(job)
    page.locator(".more").first.tap()
    page.get_by_role("menuitem", name="Edit").tap()
    page.locator("textarea.text").fill("written on a phone")
    page.keyboard.press("Enter")
    wait_saved(page)
    assert stored(site, job)["segments"][0]["text"] == "written on a phone"
    sizes = page.locator("button:visible").evaluate_all(
        """(all) => all.filter((it) => !it.closest(".line"))
          .map((it) => Math.min(it.offsetWidth, it.offsetHeight))"""
    )
    assert min(sizes) >= 24  # WCAG 2.2, 2.5.8


N_LINES = 9_000
SECONDS = 36_000.0


@pytest.fixture(scope="module")
def ten_hours(site):
    """A transcript of ten hours with 90,000 words. Its recording is short."""
    job = finished_job(site, make_wav(5))
    lengthen(site, job, SECONDS)
    lines = [
        line(i * 4, f"line{i} has the words " + "so and so on and on", seconds=3.5)
        for i in range(N_LINES)
    ]
    save(site, job, lines)
    return job


def test_ten_hours(site, visit, ten_hours):
    page = visit(site).job(ten_hours)
    expect(page.locator("p.text").first).to_contain_text("line0 ")
    assert page.locator("*").count() < 2_000
    page.locator(".transcript").evaluate("(it) => { it.scrollTop = it.scrollHeight; }")
    expect(page.locator("p.text").last).to_contain_text(f"line{N_LINES - 1} ")
    assert page.locator("*").count() < 2_000
    page.keyboard.press("Control+f")
    page.get_by_role("searchbox").fill("line4321 ")
    expect(page.locator("p.text", has_text="line4321 ")).to_be_in_viewport()
    page.keyboard.press("Escape")
    page.keyboard.press("e")
    page.locator("textarea.text").fill("a line in the middle")
    page.keyboard.press("Enter")
    wait_saved(page)
    after = stored(site, ten_hours)["segments"]
    assert after[4321]["text"] == "a line in the middle"
    assert len(after) == N_LINES
    assert page.locator("p.text span").count() == 0


def test_rows_do_not_overlap_after_jumps(site, visit, ten_hours):
    page = visit(site).job(ten_hours)
    page.set_viewport_size({"width": 500, "height": 700})
    for part in (0.3, 0.9, 0.1):
        page.locator(".transcript").evaluate(
            f"(it) => {{ it.scrollTop = it.scrollHeight * {part}; }}"
        )
        first, all_rows = (f"document.querySelector('{it}')" for it in (".row", ".canvas"))
        place = f"{first}.offsetTop / {all_rows}.offsetHeight"
        until(page, f"Math.abs({place} - {part}) < 0.02")
        # Rows that are new get their places in the frame after they were measured.
        rows = "[...document.querySelectorAll('.row')].sort((a, b) => a.offsetTop - b.offsetTop)"
        below = "it.offsetTop + it.offsetHeight <= all[i + 1].offsetTop + 1.5"
        until(page, f"{rows}.every((it, i, all) => i + 1 === all.length || {below})")


def test_live_text_from_the_microphone(site, visit):
    page = visit(site).tab("#live")
    page.get_by_role("button", name="Start").click()
    page.get_by_role("button", name="Stop").wait_for()
    expect(page.locator(".live-line:not(.partial) .text").first).to_contain_text("word0")
    page.get_by_role("button", name="Stop").click()
    with page.expect_download() as found:
        page.get_by_role("button", name="Download SRT").click()
    assert " --> " in found.value.path().read_text()


def test_record_with_the_microphone(site, visit):
    page = visit(site).tab()
    page.get_by_role("button", name="Record").click()
    expect(page.locator(".recorder .now")).to_have_text("0:02")
    page.get_by_role("button", name="Stop and transcribe").click()
    row = page.locator(".jobs li", has_text="Recording 2").first
    expect(row.locator(".state-succeeded")).to_be_visible()


@pytest.mark.parametrize("size", [(640, 462), (360, 740)])
def test_a_small_page_lacks_nothing(site, visit, rich_job, size):
    """WCAG 1.4.4: no function is lost at a zoom of 200%."""
    page = visit(site, viewport=dict(zip(("width", "height"), size, strict=True))).job(rich_job)
    page.keyboard.press("n")
    page.keyboard.press("Control+f")
    boxes = [page.locator(name).bounding_box() for name in (".transcript", ".player")]
    assert boxes[0]["y"] + boxes[0]["height"] <= boxes[1]["y"] + 1
    page.keyboard.press("Escape")
    page.locator(".wave > div").wait_for(state="attached")
    page.get_by_role("button", name="More").click()
    page.get_by_role("menuitemcheckbox", name="Spectrogram").click()
    expect(page.locator(".spectrum img")).to_be_visible()
    expect(page.locator(".wave")).to_be_visible()


@pytest.mark.parametrize("zoom", [2, 4])
def test_a_zoomed_page(site, visit, rich_job, zoom):
    """Browsers show a zoom as a smaller page: WCAG asks for 1280 x 1024 at 400%."""
    size = {"width": 1280 // zoom, "height": 1024 // zoom - (50 if zoom > 2 else 0)}
    page = visit(site, viewport=size).job(rich_job)
    assert page.evaluate("document.documentElement.scrollWidth") <= size["width"]
    page.keyboard.press("Control+f")
    page.keyboard.press("Escape")
    page.locator("p.text").nth(1).dblclick()
    area = page.locator("textarea.text").bounding_box()
    player = page.locator(".player").bounding_box()
    assert area["y"] + area["height"] <= player["y"]
    assert 0 <= area["y"] <= size["height"] - area["height"]
    page.keyboard.press("Escape")
    page.get_by_role("button", name="Play", exact=True).scroll_into_view_if_needed()
    assert page.get_by_role("button", name="Play", exact=True).is_visible()


def test_reduced_motion_and_forced_colours(site, visit, rich_job):
    page = visit(site, forced_colors="active").job(rich_job)
    page.keyboard.press("n")
    assert page.evaluate("matchMedia('(forced-colors: active)').matches")
    mark = "getComputedStyle(document.querySelector('p.text'), '::highlight(current)')"
    assert page.evaluate(f"{mark}.backgroundColor") != "rgba(0, 0, 0, 0)"
    on = page.get_by_role("button", name="Text", exact=True)
    off = page.get_by_role("button", name="Subtitles")
    width = "(it) => getComputedStyle(it).borderTopWidth"
    assert on.evaluate(width) != off.evaluate(width)
    moving = "document.getAnimations().filter((it) => it.playState === 'running').length"
    assert page.evaluate(moving) == 0
