"""The encoding of server-sent events."""

from asr.service.http.sse import encode_event


def test_an_event_has_its_id_and_name_before_its_data():
    assert (
        encode_event({"a": "é"}, name="done", number=7)
        == 'id: 7\nevent: done\ndata: {"a": "é"}\n\n'
    )


def test_the_type_in_the_data_names_the_event():
    assert encode_event({"type": "a.b"}) == 'event: a.b\ndata: {"type": "a.b"}\n\n'
    assert encode_event({"type": "a"}, name="b") == 'event: b\ndata: {"type": "a"}\n\n'


def test_an_event_without_a_name_is_a_message():
    assert encode_event("[DONE]") == "data: [DONE]\n\n"


def test_a_line_break_stays_inside_the_data():
    assert encode_event({"a": "b\nc"}) == 'data: {"a": "b\\nc"}\n\n'
