"""The page's own logic, run in the browser: words of edited lines, cues, times, events."""

import pytest

pytestmark = [pytest.mark.page, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def run(chromium, site):
    """Runs an async function that gets all modules of the page."""
    page = chromium.new_page()
    page.goto(f"{site.url}/")
    names = ["words", "model", "rules", "format"]
    imports = ", ".join(f"import('{site.url}/page/js/{name}.js')" for name in names)

    def evaluate(body, argument=None):
        merged = (
            f"Object.assign({{}}, ...(await Promise.all([{imports}])).map((it) => ({{ ...it }})))"
        )
        return page.evaluate(
            f"async (it) => {{ const m = {merged}; return ({body})(m, it); }}", argument
        )

    yield evaluate
    page.close()


SEGMENT = """const words = ["one", "two", "three", "four"].map((word, i) => ({
  word, start: i * 2, end: i * 2 + 1.5, timing: "aligned", doubtful: word === "three" }));
const segment = { start: 0, end: 10, text: "one two three four", doubts: ["odd"], words };"""


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("one two three four", [0, 2, 4, 6]),
        ("one TWO three four", [0, None, 4, 6]),
        ("zero one two three four five", [None, 0, 2, 4, 6, None]),
        ("one four", [0, 6]),
        ("completely different", [None, None]),
        ("one one two three four", [0, None, 2, 4, 6]),
        ("four three two one", None),
    ],
)
def test_words_that_stay_keep_their_times(run, text, kept):
    found = run(f"(m, text) => {{ {SEGMENT} return m.withText(segment, text).words; }}", text)
    assert [it["word"] for it in found] == text.split()
    if kept is not None:
        assert [it["start"] if it["timing"] == "aligned" else None for it in found] == kept
    times = [time for it in found for time in (it["start"], it["end"])]
    assert times == sorted(times)
    assert times[0] >= 0
    assert times[-1] <= 10


def test_text_without_spaces(run):
    words = [
        {"word": it, "start": i, "end": i + 1, "timing": "aligned"}
        for i, it in enumerate(["今天", "天气", "好"])
    ]
    segment = {
        "start": 0,
        "end": 3,
        "text": "今天天气好",
        "words": words,
        "doubts": [],
        "line": False,
    }
    found = run("(m, segment) => m.withText(segment, '今天天气很好').words", segment)
    assert [it["word"] for it in found] == ["今天", "天气", "很", "好"]
    assert [it["timing"] for it in found] == ["aligned", "aligned", "interpolated", "aligned"]


def test_split_and_merge_keep_all_words(run):
    left, right = run(f"(m) => {{ {SEGMENT} return m.split(segment, 8); }}")
    assert (left["text"], right["text"]) == ("one two", "three four")
    assert (left["end"], right["start"]) == (3.5, 4)
    assert (left["doubts"], right["doubts"]) == ([], ["odd"])
    both = run(
        "(m, [a, b]) => m.merge(a, b, { max_line_width: 42, max_line_count: 2 })", [left, right]
    )
    assert both["text"] == "one two three four"
    assert len(both["words"]) == 4
    for offset in (0, 18):
        assert run(f"(m, at) => {{ {SEGMENT} return m.split(segment, at); }}", offset) is None


@pytest.mark.parametrize(
    ("text", "width", "lines"),
    [
        ("short", 42, ["short"]),
        ("aaa bbb ccc ddd", 8, ["aaa bbb", "ccc ddd"]),
        ("a" * 50, 42, ["a" * 50]),
        (
            "the quick brown fox jumps over the lazy dog again",
            42,
            ["the quick brown fox jumps", "over the lazy dog again"],
        ),
    ],
)
def test_lines_are_even(run, text, width, lines):
    assert (
        run("(m, [text, width]) => m.breakLines(text, width, 2)", [text, width]).split("\n")
        == lines
    )


@pytest.mark.parametrize(
    ("change", "next_start", "rules"),
    [
        ({}, 5, []),
        ({"text": "x" * 43, "end": 3}, 5, ["width"]),
        ({"text": "a\nb\nc"}, 5, ["lines"]),
        ({"text": "x" * 42 + "\n" + "y" * 42}, 5, ["speed"]),
        ({"end": 7.5}, 9, ["duration"]),
        ({"end": 0.5}, 5, ["duration"]),
        ({}, 2.05, ["gap"]),
        ({}, 1.5, ["gap"]),
        ({}, 2.083, []),
    ],
)
def test_violations(run, change, next_start, rules):
    cue = {"start": 0, "end": 2, "text": "a cue", "line": True} | change
    limits = {
        "max_line_width": 42,
        "max_line_count": 2,
        "max_cue_duration": 7,
        "min_cue_duration": 0.833,
        "max_cps": 20,
        "min_gap": 0.083,
    }
    found = run(
        "(m, [cue, start, limits]) => m.violations(cue, { start }, limits)",
        [cue, next_start, limits],
    )
    assert [it["rule"] for it in found] == rules


def test_cues_become_segments_and_back(run):
    segment = SEGMENT + "segment.speaker = 'A'; const names = { A: 'Anna' };"
    srt = "1\n00:00:00,000 --> 00:00:03,600\nAnna: one\ntwo\n\n"
    srt += "2\n00:00:04,000 --> 00:00:08,000\nthree four\n\n"
    cues = run(
        f"(m, srt) => {{ {segment} return m.toCues([segment], m.parseSrt(srt), names); }}", srt
    )
    assert [it["text"] for it in cues] == ["one\ntwo", "three four"]
    assert [[it["start"], it["end"]] for it in cues] == [[0, 3.6], [4, 8]]
    assert sum(len(it["words"]) for it in cues) == 4
    back = run("(m, cues) => m.toSentences(cues)", cues)
    assert [it["text"] for it in back] == ["one two three four"]
    assert (
        run(
            f"(m, srt) => {{ {segment} return m.toCues([segment], m.parseSrt(srt), names); }}",
            srt.replace("three ", ""),
        )
        is None
    )


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1:02:03.5", 3723.5),
        ("62:03", 3723),
        ("95", 95),
        ("1h 2m 3s", 3723),
        ("2 min", 120),
        ("", None),
        ("a:b", None),
        ("1:2:3:4", None),
        ("-5", None),
    ],
)
def test_times_that_people_write(run, text, seconds):
    assert run("(m, text) => m.parseClock(text)", text) == seconds


def test_undo_restores_everything_in_order(run):
    found = run(
        f"""(m) => {{ {SEGMENT}
          const all = new m.Transcript();
          const other = {{ ...segment, start: 10, end: 20 }};
          all.load({{ segments: [segment, other], speakers: {{}} }}, "x");
          const texts = () => all.segments.map((it) => it.text).join("|");
          const seen = [texts()];
          all.replace(0, 1, [m.withText(all.segments[0], "a")], "edit"); seen.push(texts());
          all.replace(0, 2, [m.merge(...all.segments, {{}})], "join"); seen.push(texts());
          all.replace(0, 1, [], "delete"); seen.push(texts());
          const back = [];
          while (all.canUndo) {{ back.unshift(texts()); all.undo(); }}
          back.unshift(texts());
          const again = [texts()];
          while (all.canRedo) {{ all.redo(); again.push(texts()); }}
          return {{ seen, back, again }};
        }}"""
    )
    assert found["seen"] == found["back"] == found["again"]
    assert len(found["seen"]) == 4
