"""The docs agree with the code, and every module and file that a string names exists."""

from __future__ import annotations

import ast
import functools
import itertools
import json
import re
import shlex
import sys
from pathlib import Path

import pytest
import yaml

from asr.cli.settings import settings_table
from asr.engines.moonshine.folder import installed_folder as moonshine_folder
from asr.service.transcriptions.bodies import TranscriptBody
from asr.speakers.folder import installed_folder as speakers_folder
from tests.support.paths import ROOT

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")]
DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")
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


def test_image_installs_what_is_locked_and_both_models():
    commands = DOCKERFILE.replace("\\\n", "")
    lock = re.search(r"^ARG LOCK=(\S+)$", DOCKERFILE, re.MULTILINE)[1]
    assert (ROOT / lock).exists()
    assert re.search(r"^RUN .*pip install --require-hashes -r \$\{LOCK\}", commands, re.MULTILINE)
    for command, folder in (("models", moonshine_folder()), ("speakers", speakers_folder())):
        install = rf"^RUN .*-m asr {command} install --folder /models/{folder.name}"
        assert re.search(install, commands, re.MULTILINE)
        assert folder.parent == Path(sys.prefix) / "share" / "asr"
    assert "COPY --from=models /models /app/share/asr" in DOCKERFILE
    assert re.search(r"^USER (?!0|root)", DOCKERFILE, re.MULTILINE)
    assert "HEALTHCHECK" in DOCKERFILE


def test_image_gets_every_file_that_its_build_copies():
    """.dockerignore excludes everything that it does not name."""
    lock = re.search(r"^ARG LOCK=(\S+)$", DOCKERFILE, re.MULTILINE)[1]
    copied = re.findall(r"^COPY (?!--from)(.+) \S+$", DOCKERFILE, re.MULTILINE)
    allowed = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    names = " ".join(copied).replace("${LOCK}", lock).split()
    tops = {name.split("/")[0] for name in names}
    assert len(tops) >= 6
    assert {f"!{top}" for top in tops} <= set(allowed)


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


# --- names of modules and files in strings --------------------------------------------------------

PYTHON = [
    ROOT / "server.py",
    *(
        path
        for folder in ("asr", "tests", "benchmarks", "samples", "scripts", "deploy")
        for path in sorted((ROOT / folder).rglob("*.py"))
    ),
]
TEXTS = [
    *(ROOT / name for name in ("README.md", "Makefile", "Dockerfile", "compose.yaml")),
    ROOT / "pyproject.toml",
    ROOT / ".ci" / "run",
    *sorted((ROOT / "docs").rglob("*.md")),
    *sorted(path for path in (ROOT / "deploy").rglob("*") if path.is_file()),
]
DOTTED = re.compile(r"(?<![\w./-])(?:asr|tests|benchmarks)(?:\.[A-Za-z_]\w*)+(?::\w+)?(?![\w*/-])")
FILE = re.compile(r"(?<![\w./-])(?:asr|tests|benchmarks|samples|scripts|deploy)/[\w./-]*\.py\b")
OTHERS = {"asr.transcript.v1"}
"""Names that look like modules but are not."""


def strings_of(path):
    """Every string constant of a Python file, docstrings included."""
    tree = ast.parse(path.read_text("utf-8"))
    return [node.value for node in ast.walk(tree) if is_text(node)]


def is_text(node):
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


@functools.cache
def names_in(path):
    """What a module defines or imports, at any depth: classes, functions, attributes."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            found.add(node.name)
        elif isinstance(node, ast.alias):
            found.add((node.asname or node.name).partition(".")[0])
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found.add(node.id)
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            found.add(node.attr)
    return found


def exists(name):
    """Whether a dotted name is a module, or a name inside one. Imports nothing."""
    parts = name.replace(":", ".").split(".")
    for n_parts in range(len(parts), 0, -1):
        path = ROOT.joinpath(*parts[:n_parts])
        source = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
        if path.is_dir() and n_parts == len(parts):
            return True
        if source.is_file():
            # anything after an imported name belongs to another package
            return n_parts == len(parts) or parts[n_parts] in names_in(source)
    return False


@pytest.mark.parametrize(
    ("name", "is_there"),
    [
        ("asr.pipeline.stitch", True),
        ("asr.pipeline.stitch.Stitcher", True),
        ("asr.audio.recording:decode_job", True),
        ("asr.recording:decode_job", False),
        ("asr.pipeline.stitch.Sticher", False),
    ],
)
def test_a_name_is_found_where_it_is_defined(name, is_there):
    assert exists(name) is is_there


def test_every_module_and_file_that_is_named_exists():
    """Names in docstrings, jobs, monkeypatch targets, the docs, the Makefile and the images."""
    this = Path(__file__)  # it names modules that must not exist
    python = {path: "\n".join(strings_of(path)) for path in PYTHON if path != this}
    texts = {path: path.read_text("utf-8") for path in TEXTS}
    missing = [
        f"{path.relative_to(ROOT)}: {name}"
        for path, text in (python | texts).items()
        for name in missing_in(text)
    ]
    assert not missing, "\n".join(missing)


def missing_in(text):
    modules = {name for name in DOTTED.findall(text) if name not in OTHERS and not exists(name)}
    return sorted(modules | {name for name in FILE.findall(text) if not (ROOT / name).is_file()})


def test_the_scheduler_that_vllm_is_told_to_load_exists():
    """The image copies its file, so that vLLM can load it without our package."""
    module = "asr/engines/omni/gather.py"
    dockerfile = (ROOT / "deploy" / "vllm.Dockerfile").read_text("utf-8")
    assert re.search(rf"^COPY {module} \S*/vllm_gather\.py$", dockerfile, re.MULTILINE)
    pattern = re.compile(r"--scheduler-cls vllm_gather\.(\w+)")
    named = {name for path in TEXTS for name in pattern.findall(path.read_text("utf-8"))}
    assert named == {"GatheringScheduler"}
    assert named <= names_in(ROOT / module)
