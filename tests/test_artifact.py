"""The model directory: it appears whole or not at all, and is refused where it is not what was written."""

import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tensorflow import keras

import insitu
from insitu import artifact
from insitu.artifact import ImagePreprocessing, Signature, Tensor, TensorPreprocessing, publish, verified
from insitu.cluster.filesystem import rename
from insitu.data.decode import BadImage, decode
from insitu.data.png import encode_png
from insitu.data.tensors import BadTensor
from insitu.errors import UserError
from insitu.models import build

SIGNATURE = Signature(
    task="multilabel",
    inputs=(Tensor("image", "uint8", (None, 31, 33, 1), "NHWC"),),
    outputs=(Tensor("scores", "float32", (None, 2), "NK"),),
    class_names=("Mass", "Nodule"),
    preprocessing=ImagePreprocessing((31, 33), 1),
)


def write_model(directory: Path, model: keras.Model) -> None:
    """What `insitu.load` reads, not yet published."""
    directory.mkdir()
    model.save(directory / artifact.MODEL)
    artifact.write_json(directory / artifact.SIGNATURE, SIGNATURE.to_json())


@pytest.fixture(scope="module")
def trained() -> keras.Model:
    keras.utils.set_random_seed(3)
    return build("squeezenet", size=(31, 33), channels=1, outputs=2, activation="sigmoid")


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory, trained: keras.Model) -> Path:
    """A published model directory that no test changes."""
    scratch = tmp_path_factory.mktemp("artifact")
    write_model(scratch / "source", trained)
    (scratch / "source/report").mkdir()
    (scratch / "source/report/index.html").write_text("<html>")
    publish(scratch / "source", f"file://{scratch}/models/chexnet")
    return scratch / "models/chexnet"


@pytest.fixture
def model(tmp_path: Path, original: Path) -> Path:
    return shutil.copytree(original, tmp_path / "model")


@pytest.fixture
def tiny_disk(small_disk: Callable[[str], Path]) -> Path:
    return small_disk("64k")


def test_published_directory_holds_every_file_and_its_checksum(original: Path) -> None:
    expected = {artifact.MODEL, artifact.SIGNATURE, "report/index.html"}
    assert set(artifact.read_json(original / artifact.CHECKSUMS)) == expected
    with verified(str(original), setting="DIR") as local:
        found = {path.relative_to(local).as_posix() for path in local.rglob("*") if path.is_file()}
    assert found == expected | {artifact.CHECKSUMS}
    assert [path.name for path in original.parent.iterdir()] == [original.name]


def test_verified_copy_is_gone_afterwards(original: Path) -> None:
    with verified(str(original), setting="DIR") as local:
        assert local.exists()
    assert not local.exists()


def test_existing_output_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken/mine.txt").write_text("mine")
    with pytest.raises(UserError, match=r"--output: .*taken exists; name a new directory"):
        publish(tmp_path / "source", str(tmp_path / "taken"))
    assert [path.name for path in (tmp_path / "taken").iterdir()] == ["mine.txt"]


def test_full_disk_in_the_middle_leaves_nothing(tmp_path: Path, tiny_disk: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for number in range(4):
        (source / f"part-{number}").write_bytes(os.urandom(20_000))
    with pytest.raises(OSError, match="No space left on device"):
        publish(source, f"file://{tiny_disk}/model")
    assert list(tiny_disk.iterdir()) == []
    for number in (2, 3):
        (source / f"part-{number}").unlink()
    publish(source, f"file://{tiny_disk}/model")
    assert [path.name for path in tiny_disk.iterdir()] == ["model"]


def test_staging_on_another_file_system_leaves_nothing(tmp_path: Path, tiny_disk: Path) -> None:
    """Where the kernel cannot rename, a copy would appear file by file."""
    (tmp_path / "source").mkdir()
    with pytest.raises(OSError, match="cross-device"):
        publish(tmp_path / "source", str(tmp_path / "model"), staging=f"file://{tiny_disk}")
    assert list(tiny_disk.iterdir()) == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["disk", "source"]


def test_publishing_whose_answer_was_lost_is_done_already(
    original: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when a NameNode renames and goes away before it says so; whoever called tries again."""
    source, target = tmp_path / "source", tmp_path / "target"
    shutil.copytree(original, source)

    def lose_the_answer(*places: Any) -> None:
        rename(*places)
        raise ConnectionError

    with monkeypatch.context() as patched, pytest.raises(ConnectionError):
        patched.setattr(artifact, "rename", lose_the_answer)
        publish(source, str(target))
    publish(source, str(target))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["source", "target"]
    (source / artifact.SIGNATURE).write_text("{}")
    with pytest.raises(UserError, match="target exists"):
        publish(source, str(target))


def test_publisher_killed_in_the_middle_leaves_nothing_under_the_outputs_name(tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    (tmp_path / "source/large").write_bytes(bytes(100_000))
    code = (
        "import resource, signal, sys, pathlib\n"
        "from insitu.artifact import publish\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_DFL)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))\n"
        "publish(pathlib.Path(sys.argv[1]), sys.argv[2])\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "source"), str(tmp_path / "out/model")]
    assert subprocess.run(command).returncode == -signal.SIGXFSZ
    assert not (tmp_path / "out/model").exists()
    assert [path.name.startswith(".model.") for path in (tmp_path / "out").iterdir()] == [True]


def test_file_in_the_place_of_the_parent_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    (tmp_path / "parent").write_text("a file")
    with pytest.raises(OSError):
        publish(tmp_path / "source", str(tmp_path / "parent/model"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["parent", "source"]


def test_any_changed_byte_is_refused_by_its_file(model: Path) -> None:
    rng = np.random.default_rng(1)
    for name in (artifact.MODEL, artifact.SIGNATURE, "report/index.html"):
        content = (model / name).read_bytes()
        place = int(rng.integers(len(content)))
        (model / name).write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
        with pytest.raises(UserError, match=rf"directory: .*model: {name} is not what was written"):
            insitu.load(str(model))
        (model / name).write_bytes(content)
    insitu.load(str(model))


def test_any_changed_byte_of_the_checksums_is_refused(model: Path) -> None:
    content = (model / artifact.CHECKSUMS).read_bytes()
    for place in (0, 6, content.index(b": ") + 4, len(content) - 3):
        (model / artifact.CHECKSUMS).write_bytes(content[:place] + b"\xff" + content[place + 1 :])
        with pytest.raises(UserError, match=r"checksums\.json is not what was written"):
            insitu.load(str(model))
    digit = content.index(b'": "') + 4
    (model / artifact.CHECKSUMS).write_bytes(content[:digit] + b"x" + content[digit + 1 :])
    with pytest.raises(UserError, match="is not what was written"):
        insitu.load(str(model))


def test_missing_file_is_refused_by_its_name(model: Path) -> None:
    (model / "report/index.html").unlink()
    with pytest.raises(UserError, match=r"directory: .*model: report/index\.html is missing; restore"):
        insitu.load(str(model))


def test_added_file_is_refused_by_its_name(model: Path) -> None:
    (model / "report/extra.js").write_text("")
    with pytest.raises(UserError, match=r"directory: .*model: report/extra\.js is not in its checksums; restore"):
        insitu.load(str(model))


def test_what_is_no_model_directory_is_refused(tmp_path: Path) -> None:
    for wrong in (tmp_path, tmp_path / "absent"):
        with pytest.raises(UserError, match=rf"directory: {wrong} is no model directory .*; name the --output"):
            insitu.load(str(wrong))


def test_model_directory_that_cannot_be_read_is_not_taken_for_something_else(model: Path) -> None:
    (model / artifact.CHECKSUMS).unlink()
    (model / artifact.CHECKSUMS).symlink_to(model / artifact.CHECKSUMS)
    with pytest.raises(OSError, match="Too many levels of symbolic links"):
        insitu.load(str(model))


TENSOR_SIGNATURE = replace(
    SIGNATURE,
    inputs=(Tensor("tensor", "float32", (None, 31, 33, 1), "NHWC"),),
    preprocessing=TensorPreprocessing((31, 33)),
)


@pytest.mark.parametrize("signature", [SIGNATURE, TENSOR_SIGNATURE], ids=["image", "tensor"])
def test_signature_survives_json(signature: Signature) -> None:
    assert Signature.from_json(json.loads(json.dumps(signature.to_json()))) == signature


def test_preprocessing_is_written_as_a_function_and_its_arguments() -> None:
    """As it has been since the first model directories, which are still read."""
    image, tensor = (signature.to_json()["preprocessing"] for signature in (SIGNATURE, TENSOR_SIGNATURE))
    assert image == {"function": "insitu.data.decode.decode", "size": (31, 33), "channels": 1}
    assert tensor == {"function": "insitu.data.tensors.read_tensor", "shape": (31, 33)}


def test_preprocessing_of_another_version_is_refused() -> None:
    later = SIGNATURE.to_json() | {"preprocessing": {"function": "insitu.data.audio.decode", "rate": 16000}}
    with pytest.raises(UserError, match=r"signature\.json: preprocessing is insitu\.data\.audio\.decode, unknown here"):
        Signature.from_json(later)


def test_loaded_model_of_tensors_preprocesses_lists_and_arrays(tmp_path: Path) -> None:
    network = build("squeezenet", size=(31, 33), channels=1, outputs=2, activation="sigmoid", input="tensor")
    write_model(tmp_path / "source", network)
    artifact.write_json(tmp_path / "source" / artifact.SIGNATURE, TENSOR_SIGNATURE.to_json())
    publish(tmp_path / "source", str(tmp_path / "model"))
    loaded = insitu.load(str(tmp_path / "model"))
    window = np.random.default_rng(2).normal(size=(31, 33)).astype(np.float32)
    for value in (window, window.tolist(), window.ravel().tolist()):
        np.testing.assert_array_equal(loaded.preprocess(value), window[:, :, None])
    np.testing.assert_array_equal(loaded.model(window[None, :, :, None]), network(window[None, :, :, None]))
    with pytest.raises(BadTensor, match="list of 2, expected 1023"):
        loaded.preprocess([1.0, 2.0])


def test_loaded_model_predicts_as_the_saved_one(model: Path, trained: keras.Model) -> None:
    images = np.random.default_rng(2).integers(0, 256, (3, 31, 33, 1), np.uint8)
    loaded = insitu.load(f"file://{model}")
    np.testing.assert_array_equal(loaded.model(images), trained(images))
    assert loaded.signature == SIGNATURE


def test_loaded_preprocessing_is_the_decoder_with_the_models_size(model: Path) -> None:
    payload = encode_png(np.random.default_rng(2).integers(0, 256, (50, 40), np.uint8))
    loaded = insitu.load(str(model))
    np.testing.assert_array_equal(loaded.preprocess(payload), decode(payload, size=(31, 33), channels=1))
    with pytest.raises(BadImage):
        loaded.preprocess(payload[:40])


def test_model_with_python_code_in_it_is_refused(tmp_path: Path) -> None:
    model = keras.Sequential([keras.layers.InputLayer((4,)), keras.layers.Lambda(lambda x: 2 * x)])
    write_model(tmp_path / "source", model)
    publish(tmp_path / "source", str(tmp_path / "model"))
    with pytest.raises(UserError, match=r"model\.keras: it names code of .*test_artifact, "):
        insitu.load(str(tmp_path / "model"))


def test_model_that_names_a_foreign_module_is_refused_and_not_imported(
    tmp_path: Path, trained: keras.Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "evil.py").write_text(f"open({str(tmp_path / 'was-run')!r}, 'w')\nclass Layer: pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    write_model(tmp_path / "source", trained)
    archive = tmp_path / "source" / artifact.MODEL
    with zipfile.ZipFile(archive) as found:
        parts = {name: found.read(name) for name in found.namelist()}
    parts["config.json"] = parts["config.json"].replace(b'"keras.layers"', b'"evil"', 1)
    with zipfile.ZipFile(archive, "w") as changed:
        for name, part in parts.items():
            changed.writestr(name, part)
    publish(tmp_path / "source", str(tmp_path / "model"))
    with pytest.raises(UserError, match=r"model\.keras: it names code of evil, "):
        insitu.load(str(tmp_path / "model"))
    assert not (tmp_path / "was-run").exists()


class Payload:
    """Makes a directory when it is unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return os.mkdir, (self.target,)


def test_pickle_in_the_place_of_the_model_is_refused_and_not_run(tmp_path: Path, trained: keras.Model) -> None:
    write_model(tmp_path / "source", trained)
    (tmp_path / "source" / artifact.MODEL).write_bytes(pickle.dumps(Payload(tmp_path / "was-run")))
    publish(tmp_path / "source", str(tmp_path / "model"))
    with pytest.raises(UserError, match=r"model\.keras: it is no Keras archive; "):
        insitu.load(str(tmp_path / "model"))
    assert not (tmp_path / "was-run").exists()


def test_upload_appears_whole(tmp_path: Path) -> None:
    (tmp_path / "local").write_text("new")
    artifact.upload(tmp_path / "local", f"file://{tmp_path}/there")
    artifact.download(f"file://{tmp_path}/there", tmp_path / "back")
    assert (tmp_path / "back").read_text() == "new"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["back", "local", "there"]
