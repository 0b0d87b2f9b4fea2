"""The OpenAPI document: it is valid, and it describes every route, parameter and answer."""

from __future__ import annotations

import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator

from asr.output.formats import EXTENSIONS, FORMATS
from tests.support.inprocess import serving
from tests.support.serving import HTTP, make_wav, wait_for

METHODS = {"get", "head", "post", "put", "patch", "delete", "options"}
OPEN = ("/health", "/ready")


@pytest.fixture(scope="module")
def server():
    with serving() as server:
        yield server


@pytest.fixture(scope="module")
def document(server):
    return HTTP.get(f"{server.url}/openapi.json").json()


@pytest.fixture(scope="module")
def operations(document):
    return {
        (method, path): operation
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
        if method in METHODS
    }


def test_the_document_is_valid(document):
    assert [error.message for error in OpenAPIV31SpecValidator(document).iter_errors()] == []
    assert document["info"]["version"]


def test_every_operation_describes_its_answers(operations):
    assert len(operations) > 20
    names = [operation["operationId"] for operation in operations.values()]
    assert len(set(names)) == len(names)
    assert {"create_transcription", "create_job", "list_jobs"} <= set(names)
    for name, operation in operations.items():
        method, path = name
        responses = operation["responses"]
        assert operation["summary"], name
        assert "HTTPValidationError" not in str(responses), name
        for status, response in responses.items():
            has_body = method != "head" and status not in ("201", "204", "304")
            assert not has_body or response.get("content"), (name, status)
            for media in response.get("content", {}).values():
                assert media["schema"] or path == "/v1/schemas/transcript.json", (name, status)
        if path not in OPEN:
            assert "ErrorBody" in str(responses["default"]), name
            assert operation["security"], name
        if method in ("post", "patch") and not path.endswith(("/cancel", "/media_token")):
            assert "requestBody" in operation or path == "/v1/uploads/{upload_id}", name


def test_parameters_that_are_read_by_hand_are_described(operations):
    names = {
        name: {parameter["name"] for parameter in operation.get("parameters", ())}
        for name, operation in operations.items()
    }
    jobs = names["get", "/v1/jobs"]
    assert jobs == {"limit", "after", "state", "name", "metadata", "X-Request-Id"}
    assert "Last-Event-ID" in names["get", "/v1/jobs/{job_id}/events"]
    assert "max_cps" in names["get", "/v1/jobs/{job_id}/transcript.{extension}"]
    assert "Upload-Offset" in names["patch", "/v1/uploads/{upload_id}"]
    assert "Idempotency-Key" in names["post", "/v1/jobs"]


def test_every_format_is_among_the_answers(operations):
    content = operations["post", "/v1/audio/transcriptions"]["responses"]["200"]["content"]
    kinds = {kind.content_type.partition(";")[0] for kind in FORMATS.values()}
    assert set(content) == kinds | {"text/event-stream"}


def test_answers_have_the_described_type(server, operations):
    """Each successful answer of a real job has a content type that the document names."""
    job = HTTP.post(
        f"{server.url}/v1/jobs?keep_recording=true",
        headers={"content-type": "audio/wav"},
        content=make_wav(1.0),
    ).json()["id"]
    own = f"{server.url}/v1/jobs/{job}"
    wait_for(lambda: HTTP.get(own).json()["state"] == "succeeded", 20, "the end of the job")
    for (method, path), operation in operations.items():
        # tests/service/page/test_media.py draws a spectrogram, which takes seconds.
        left_out = "session" in path or "spectrogram" in path or path == "/v1/speakers/{name}"
        if method != "get" or left_out:
            continue
        for extension in EXTENSIONS if "{extension}" in path else [""]:
            address = path.format(job_id=job, extension=extension, name="tiny")
            answer = HTTP.get(server.url + address)
            assert answer.status_code == 200, address
            kind = answer.headers["content-type"].partition(";")[0]
            assert kind in operation["responses"]["200"]["content"], address
