"""The model directory: what it holds, how it is written, and how it is verified.

A directory appears whole or not at all: it is built beside its place and renamed. Every file is in
`checksums.json` and is verified before anything is loaded. Nothing in it is code or a pickle.
"""

import hashlib
import json
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar
from uuid import uuid4

from insitu.cluster.filesystem import open_filesystem
from insitu.errors import UserError

if TYPE_CHECKING:
    import keras

CHECKSUMS = "checksums.json"
MODEL = "model.keras"
RECIPE = "recipe.yaml"
SIGNATURE = "signature.json"
PROVENANCE = "provenance.json"
METRICS = "metrics.json"
HISTORY = "history.jsonl"
QUARANTINE = "quarantine.parquet"
PREDICTIONS = "predictions.parquet"
STEPS = "steps.jsonl"
TENSORBOARD = "tensorboard"


@dataclass(frozen=True)
class Tensor:
    """A model input or output; a None in `shape` is the batch."""

    name: str
    dtype: str
    shape: tuple[int | None, ...]
    layout: str


@dataclass(frozen=True)
class ImagePreprocessing:
    """How a stored image becomes the model's input: the arguments of `FUNCTION`."""

    FUNCTION: ClassVar = "insitu.data.decode.decode"
    size: tuple[int, int]
    channels: int


@dataclass(frozen=True)
class TensorPreprocessing:
    """How a stored tensor becomes the model's input: the arguments of `FUNCTION`."""

    FUNCTION: ClassVar = "insitu.data.tensors.read_tensor"
    shape: tuple[int, ...]


Preprocessing = ImagePreprocessing | TensorPreprocessing


@dataclass(frozen=True)
class Signature:
    """What goes into a model and what comes out of it."""

    task: str
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    class_names: tuple[str, ...]
    preprocessing: Preprocessing

    def to_json(self) -> dict[str, Any]:
        preprocessing = {"function": self.preprocessing.FUNCTION, **asdict(self.preprocessing)}
        return asdict(self) | {"preprocessing": preprocessing}

    @classmethod
    def from_json(cls, tree: dict[str, Any]) -> "Signature":
        """The inverse of `to_json`.

        Raises:
            UserError: a preprocessing that this version does not have.
        """
        return cls(
            task=tree["task"],
            inputs=tuple(Tensor(**{**entry, "shape": tuple(entry["shape"])}) for entry in tree["inputs"]),
            outputs=tuple(Tensor(**{**entry, "shape": tuple(entry["shape"])}) for entry in tree["outputs"]),
            class_names=tuple(tree["class_names"]),
            preprocessing=_preprocessing(**tree["preprocessing"]),
        )


def _preprocessing(*, function: str, **arguments: Any) -> Preprocessing:
    if function == ImagePreprocessing.FUNCTION:
        return ImagePreprocessing(tuple(arguments["size"]), arguments["channels"])
    if function == TensorPreprocessing.FUNCTION:
        return TensorPreprocessing(tuple(arguments["shape"]))
    raise UserError(SIGNATURE, f"preprocessing is {function}, unknown here", "use the version that made it")


def check_free(uri: str, *, setting: str = "--output") -> None:
    """Raise `UserError` where something is at `uri` already."""
    file_system, path = open_filesystem(uri)
    if file_system.exists(path):
        raise UserError(setting, f"{uri} exists", "name a new directory, or remove this one")


def publish(directory: Path, uri: str, *, staging: str | None = None) -> None:
    """Checksum a finished local directory and make it appear at `uri` in one step.

    Args:
        directory: local; gets a checksum file.
        uri: where it shall be.
        staging: a directory on the same file system to upload to first; None is beside `uri`.

    Raises:
        UserError: something is at `uri` already.
        OSError: the file system is full or away; nothing is at `uri`.
    """
    check_free(uri)
    write_json(directory / CHECKSUMS, {name: _sha256(directory / name) for name in _files(directory)})
    file_system, path = open_filesystem(uri)
    parent, _, name = path.rstrip("/").rpartition("/")
    file_system.makedirs(parent or "/", exist_ok=True)
    hidden = f"{open_filesystem(staging)[1] if staging else parent}/.{name}.{uuid4().hex[:8]}"
    try:
        file_system.put(f"{directory}/", f"{hidden}/", recursive=True)
        file_system.mv(hidden, path, recursive=True)
    except BaseException:
        if file_system.exists(hidden):
            file_system.rm(hidden, recursive=True)
        raise


@contextmanager
def verified(uri: str, *, setting: str) -> Iterator[Path]:
    """A local copy of a model directory whose every file matches its checksum.

    Args:
        uri: the model directory.
        setting: what named it, for the error.

    Raises:
        UserError: no model directory, or a file that is changed, missing or unknown.
    """
    file_system, path = open_filesystem(uri)
    if not file_system.exists(f"{path.rstrip('/')}/{CHECKSUMS}"):
        raise UserError(
            setting, f"{uri} is no model directory (it has no {CHECKSUMS})", "name the --output of a training job"
        )
    with tempfile.TemporaryDirectory(prefix="insitu-") as scratch:
        local = Path(scratch) / "model"
        file_system.get(path, str(local), recursive=True)
        _verify(local, uri, setting)
        yield local


def load_keras(directory: Path) -> "keras.Model":
    """The Keras model of a verified directory, in Keras's safe mode, ready for inference.

    Raises:
        UserError: the file is no Keras archive, or names code outside Keras, whose module Keras 2.15
            would import in safe mode too.
    """
    import tensorflow as tf

    try:
        with zipfile.ZipFile(directory / MODEL) as archive:
            foreign = _foreign_modules(json.loads(archive.read("config.json")))
    except zipfile.BadZipFile:
        raise UserError(MODEL, "it is no Keras archive", "train it again with insitu") from None
    if foreign:
        raise UserError(MODEL, f"it names code of {foreign[0]}, expected only Keras's", "train it again with insitu")
    return tf.keras.models.load_model(directory / MODEL, compile=False, safe_mode=True)


def _foreign_modules(config: Any) -> list[str]:
    """The modules outside Keras that a saved model's configuration names, at any depth."""
    if isinstance(config, list):
        return [name for entry in config for name in _foreign_modules(entry)]
    if not isinstance(config, dict):
        return []
    module = config.get("module")
    own = [module] if isinstance(module, str) and module.split(".")[0] != "keras" else []
    return own + _foreign_modules(list(config.values()))


def read_json(path: Path) -> Any:
    return json.loads(path.read_text())


def write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n")


def upload(local: Path, uri: str) -> None:
    """Copy a local file to a URI so that it appears whole, in the place of what is there."""
    file_system, path = open_filesystem(uri)
    file_system.put_file(str(local), f"{path}.part")
    file_system.mv(f"{path}.part", path, overwrite=True)


def download(uri: str, local: Path) -> None:
    file_system, path = open_filesystem(uri)
    file_system.get_file(path, str(local))


def _verify(local: Path, uri: str, setting: str) -> None:
    mend = "restore the directory from its source, or train again"
    try:
        expected = read_json(local / CHECKSUMS)
    except ValueError:
        raise UserError(setting, f"{uri}: {CHECKSUMS} is not what was written (it is not JSON)", mend) from None
    found = _files(local)
    for name in sorted({*expected, *found}):
        if name not in expected:
            fault = "is not in its checksums"
        elif name not in found:
            fault = "is missing"
        elif _sha256(local / name) != expected[name]:
            fault = "is not what was written (its SHA-256 differs)"
        else:
            continue
        raise UserError(setting, f"{uri}: {name} {fault}", mend)


def _files(directory: Path) -> list[str]:
    paths = (path.relative_to(directory).as_posix() for path in directory.rglob("*") if path.is_file())
    return sorted(name for name in paths if name != CHECKSUMS)


def _sha256(path: Path) -> str:
    with path.open("rb") as source:
        return hashlib.file_digest(source, "sha256").hexdigest()
