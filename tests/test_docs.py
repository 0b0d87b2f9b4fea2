"""What the documents say is what the code does."""

from __future__ import annotations

import itertools
import json
import re
import shlex

import pytest
import yaml

from asr.cli.settings import settings_table
from asr.service.transcriptions.bodies import TranscriptBody
from tests.support.paths import ROOT

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")]
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")


def test_table_of_settings_is_current():
    page = (ROOT / "docs" / "settings.md").read_text(encoding="utf-8")
    assert settings_table() in page, "run make docs"


def test_schema_is_current():
    written = json.loads((ROOT / "docs" / "transcript.schema.json").read_text(encoding="utf-8"))
    assert written == TranscriptBody.model_json_schema(), "run make docs"


def test_every_make_target_that_is_named_exists():
    pages = [*PAGES, ROOT / ".ci" / "run"]
    targets = set(re.findall(r"^([a-z][a-z-]*):", MAKEFILE, re.MULTILINE))
    for page in pages:
        named = set(re.findall(r"^(?:\$ )?make ([a-z-]+)", page.read_text("utf-8"), re.MULTILINE))
        assert named <= targets, page


def test_every_linked_file_exists():
    for page in PAGES:
        for link in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text("utf-8")):
            assert (page.parent / link).exists(), f"{page.name}: {link}"


def test_image_is_built_by_the_make_target_that_a_developer_uses():
    dockerfile = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    assert "RUN make runtime" in dockerfile
    assert re.search(r"^runtime:", MAKEFILE, re.MULTILINE)
    assert re.search(r"^USER (?!0|root)", dockerfile, re.MULTILINE)
    assert "HEALTHCHECK" in dockerfile


def test_compose_file_has_a_cpu_profile_that_is_locked_down():
    service = yaml.safe_load((ROOT / "compose.yaml").read_text(encoding="utf-8"))["services"]["asr"]
    assert "cpu" in service["profiles"]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]


COMPOSE = (ROOT / "compose.yaml").read_text(encoding="utf-8")
ENV_FILES = sorted((ROOT / "deploy").glob("*.env"))


def compose(**env):
    """The services as compose reads them: ${NAME:-default} from the environment."""
    text = re.sub(r"\$\{(\w+):-([^}]*)\}", lambda found: env.get(found[1]) or found[2], COMPOSE)
    return yaml.safe_load(text)["services"]


def read_env(path):
    lines = (line for line in path.read_text("utf-8").splitlines() if line[:1] not in ("", "#"))
    return dict(line.split("=", 1) for line in lines)


@pytest.mark.parametrize("path", [None, *ENV_FILES], ids=lambda path: path and path.name)
def test_compose_gives_vllm_flags_that_fit_together(path):
    services = compose(**read_env(path) if path else {})
    words = shlex.split(services["vllm"]["command"])
    value = dict(itertools.pairwise(words))
    slots = int(services["asr-omni"]["environment"]["ASR_ENGINE_SLOTS"])
    assert 0 < slots <= int(value["--max-num-seqs"])
    assert json.loads(value["--limit-mm-per-prompt"]) == {"image": 0, "video": 0, "audio": 1}
    assert ("FP8" in words[0]) == ("--kv-cache-memory-bytes" in words), (
        "without them FP8 ran out of memory"
    )
    if "--cudagraph-capture-sizes" in words:
        sizes = [int(it) for it in words[words.index("--cudagraph-capture-sizes") + 1 :]]
        assert sizes == sorted(set(sizes))
        assert sizes[-1] <= int(value["--max-num-batched-tokens"])


def test_compose_can_be_told_the_moe_backend_the_gpus_and_the_image():
    vllm = compose(OMNI_MOE_BACKEND="auto", OMNI_GPUS="2", OMNI_BASE="other/vllm:1")["vllm"]
    assert "--moe-backend auto" in vllm["command"]
    assert vllm["deploy"]["resources"]["reservations"]["devices"][0]["count"] == 2
    assert vllm["build"]["args"] == {"BASE": "other/vllm:1"}
    usual, dockerfile = compose()["vllm"], (ROOT / "deploy" / "vllm.Dockerfile").read_text("utf-8")
    assert "--moe-backend triton" in usual["command"]
    assert f"ARG BASE={usual['build']['args']['BASE']}\nFROM ${{BASE}}\n" in dockerfile


def test_compose_reads_every_variable_that_is_given_to_it():
    page = (ROOT / "docs" / "deployment.md").read_text("utf-8")
    given = set(re.findall(r"\bOMNI_\w+", page)).union(*map(read_env, ENV_FILES))
    assert "OMNI_MODEL" in given
    assert given <= set(re.findall(r"\$\{(\w+)", COMPOSE))


def test_no_example_starts_the_service_on_the_port_of_its_recogniser():
    for page in PAGES:
        text = page.read_text("utf-8").replace("\\\n", " ")
        for line in re.findall(r".*(?:127\.0\.0\.1|localhost):8000\b.*\basr serve.*", text):
            assert "--port" in line, f"{page.name}: {line}"


def test_every_test_that_security_is_said_to_rest_on_exists():
    page = (ROOT / "docs" / "security.md").read_text("utf-8")
    sources = "".join(path.read_text("utf-8") for path in (ROOT / "tests").rglob("test_*.py"))
    named = set(re.findall(r"`(test_\w+)`", page))
    assert len(named) > 20
    assert not {name for name in named if f"def {name}(" not in sources}
    for module in re.findall(r"`(tests/[\w/]+\.py)`", page):
        assert (ROOT / module).exists(), module
