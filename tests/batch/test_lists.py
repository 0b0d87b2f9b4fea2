"""Lists of recordings, as people and programs write them."""

import pytest

from asr.batch.lists import entries
from asr.batch.sources import list_sources
from asr.errors import InvalidOption


@pytest.mark.parametrize(
    ("name", "data", "found"),
    [
        ("a.txt", b"a.wav\r\n\r\n# no\nb c.wav \n", ["a.wav", "b c.wav "]),
        ("a.txt", "\ufeffé.wav".encode(), ["é.wav"]),
        ("a.txt", "é.wav\r\n".encode("utf-16"), ["é.wav"]),
        ("a.txt", b"{1}.wav\n{not json\n", ["{1}.wav", "{not json"]),
        ("a.txt", b'{"path": 3}', ['{"path": 3}']),
        ("standard input", b'{"path": "a.wav"}\nb.wav\n', ["a.wav", "b.wav"]),
        ("standard input", b"a\nb.wav\0#c.wav\0", ["a\nb.wav", "#c.wav"]),
        ("a.jsonl", b'{"url": "", "file": "a.wav"}\n\n#\n', ["a.wav"]),
        ("a.csv", b'id,path\n1,a.wav\n\n2,"b,\n\'c.wav"\n', ["a.wav", "b,\n'c.wav"]),
        ("a.CSV", b"# made by hand\nPath;x\na,b.wav;1\n", ["a,b.wav"]),
        ("http://h/a.csv?x=1", b"file\na.wav", ["a.wav"]),
        ("a.tsv", b"x\turl\n\thttp://h/a.wav\n", ["http://h/a.wav"]),
        ("a.csv", b"path\ncaf\xe9.wav", ["caf\udce9.wav"]),
        ("a.txt", b"", []),
    ],
)
def test_what_a_list_names(name, data, found):
    assert list(entries(data, name)) == found


@pytest.mark.parametrize(
    ("name", "data", "told"),
    [
        ("a.csv", b"", "must name a column"),
        ("a.csv", b"a.wav\nb.wav\n", "must name a column"),
        ("a.csv", b"id,path\n1,a.wav\n2\n", "line 3: no path"),
        ("a.csv", b"path\n" + b"x" * 200_000, "line 2: field larger"),
        ("a.csv", b'path\n"a.wav\nb.wav\n', "line 3: unexpected end"),
        ("a.jsonl", b'{"path": "a.wav"}\n"b.wav"', "line 2: not a JSON object"),
        ("a.jsonl", b'{"path": "a.wav"}\n{"pa', "line 2: not JSON"),
        ("a.jsonl", b"[" * 100_000, "line 1: not JSON"),
        ("a.jsonl", b'{"path": ""}', "line 1: no field path, file, url or audio_filepath"),
    ],
)
def test_a_line_that_cannot_be_read_is_named(name, data, told):
    with pytest.raises(InvalidOption, match=told):
        list(entries(data, name))


def test_a_list_may_name_folders_and_globs_and_what_is_missing_is_a_row(tmp_path):
    (tmp_path / "sub").mkdir()
    for name in ("sub/a.wav", "b.mp3", "c.mp3"):
        (tmp_path / name).write_bytes(b"x")
    names = ["sub", "*.mp3", "no[1].wav", "no.wav", "n" * 300, "x\udc00y", "\ud800"]
    text = "\n".join(names).encode("utf-8", "surrogatepass")
    (tmp_path / "list.txt").write_bytes(text)
    found = {
        source.path.removeprefix(f"{tmp_path}/"): source.error
        for source in list_sources([str(tmp_path / "list.txt")]).sources
    }
    assert list(found)[:4] == ["sub/a.wav", "b.mp3", "c.mp3", "no[1].wav"]
    assert [bool(error) for error in found.values()] == 3 * [False] + 5 * [True]


def test_a_name_that_is_too_long_is_a_row():
    (source,) = list_sources(["n" * 300]).sources
    assert source.error == "cannot be read: File name too long"
