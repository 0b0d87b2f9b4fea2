"""What the documents say is what the code does."""

from __future__ import annotations

import json
import re

import yaml

from asr.service.schemas import TranscriptBody
from asr.settings import settings_table
from tests.serving import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")


def test_table_of_settings_is_current():
    assert settings_table() in README, "run make docs"


def test_schema_is_current():
    written = json.loads((ROOT / "docs" / "transcript.schema.json").read_text(encoding="utf-8"))
    assert written == TranscriptBody.model_json_schema(), "run make docs"


def test_every_make_target_that_is_named_exists():
    pages = [ROOT / "README.md", *(ROOT / "docs").glob("*.md"), ROOT / ".ci" / "run"]
    targets = set(re.findall(r"^([a-z][a-z-]*):", MAKEFILE, re.MULTILINE))
    for page in pages:
        named = set(re.findall(r"^(?:\$ )?make ([a-z-]+)", page.read_text("utf-8"), re.MULTILINE))
        assert named <= targets, page


def test_every_linked_file_exists():
    for page in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]:
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


def test_every_test_that_security_is_said_to_rest_on_exists():
    page = (ROOT / "docs" / "security.md").read_text("utf-8")
    sources = "".join(path.read_text("utf-8") for path in (ROOT / "tests").glob("test_*.py"))
    named = set(re.findall(r"`(test_\w+)`", page))
    assert len(named) > 20
    assert not {name for name in named if f"def {name}(" not in sources}
    for module in re.findall(r"`(test_\w+\.py)`", page):
        assert (ROOT / "tests" / module).exists(), module
