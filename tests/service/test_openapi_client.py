"""A client that openapi-python-client generates from our document transcribes a file.

`make test-openapi` installs the generator into an environment of its own and runs this.
"""

from __future__ import annotations

import importlib
import io
import json
import subprocess
import sys

import pytest

from tests.support.inprocess import serving
from tests.support.paths import ROOT
from tests.support.serving import HTTP, make_wav

GENERATOR = ROOT / ".venv-openapi" / "bin" / "openapi-python-client"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not GENERATOR.exists(), reason="make test-openapi installs the generator"),
]


def test_a_generated_client_transcribes_a_file(tmp_path, monkeypatch):
    with serving() as server:
        document = tmp_path / "openapi.json"
        document.write_text(json.dumps(HTTP.get(f"{server.url}/openapi.json").json()))
        command = [GENERATOR, "generate", "--path", document, "--meta", "none"]
        made = subprocess.run(
            [*command, "--output-path", tmp_path / "made"], capture_output=True, text=True
        )
        assert made.returncode == 0, made.stdout
        assert "Endpoint will not be generated" not in made.stdout
        monkeypatch.syspath_prepend(tmp_path)
        package = importlib.import_module("made")
        models = importlib.import_module("made.models")
        create = importlib.import_module("made.api.default.create_transcription")
        types = importlib.import_module("made.types")
        start, end = "CreateTranscriptionFiles", "Form"
        (form,) = [it for it in dir(models) if it.startswith(start) and it.endswith(end)]
        file = types.File(io.BytesIO(make_wav(2.0)), "a.wav", "audio/wav")
        body = getattr(models, form)(file=file)
        with package.Client(base_url=server.url) as client:
            answer = create.sync_detailed(client=client, body=body)
        assert answer.status_code == 200, answer.content
        assert answer.parsed.text == "word0 word1 word2 word3"
    for name in [name for name in sys.modules if name.split(".")[0] == "made"]:
        monkeypatch.delitem(sys.modules, name)
