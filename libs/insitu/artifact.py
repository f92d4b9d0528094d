"""The model directory: what it holds, how it is written, and how it is verified.

A directory appears whole or not at all: it is built beside its place and renamed. Every file is in
`checksums.json` and is verified before anything is loaded. Nothing in it is code or a pickle.
"""

import hashlib
import json
import tempfile
import zipfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar
from uuid import uuid4

from insitu.cluster.filesystem import in_scratch, open_filesystem, rename
from insitu.errors import UserError

if TYPE_CHECKING:
    import keras

CHECKSUMS = "checksums.json"
MODEL = "model.keras"
ALS = "als/"
INT8 = "int8/"
BF16 = "bf16/"
RECIPE = "recipe.yaml"
SIGNATURE = "signature.json"
PROVENANCE = "provenance.json"
METRICS = "metrics.json"
HISTORY = "history.jsonl"
QUARANTINE = "quarantine.parquet"
PREDICTIONS = "predictions.parquet"
REFERENCE = "reference.parquet"
STEPS = "steps.jsonl"
TENSORBOARD = "tensorboard"
QUANTIZATION = "quantization.html"

_JOBS = {MODEL: "jobs/train_cnn.py", ALS: "jobs/train_als.py"}
_RESTORE = "restore the directory from its source, or train again"
_BLOCK_BYTES = 1 << 20

Each = Callable[[Callable[[str], str], list[str]], Iterable[str]]
"""Calls a function with every element of a list: `map`, or one that has executors do it."""


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
        UserError: something else is at `uri` already.
        OSError: the file system is full or away; called again, it goes on, also where the directory is at `uri` and
            only the answer was lost.
    """
    with in_scratch(directory):
        seal(str(directory))
    file_system, path = open_filesystem(uri)
    sealed = f"{path}/{CHECKSUMS}"
    if file_system.exists(sealed) and file_system.cat_file(sealed) == (directory / CHECKSUMS).read_bytes():
        return
    check_free(uri)
    parent, _, name = path.rstrip("/").rpartition("/")
    file_system.makedirs(parent or "/", exist_ok=True)
    hidden = f"{open_filesystem(staging)[1] if staging else parent}/.{name}.{uuid4().hex[:8]}"
    try:
        file_system.put(f"{directory}/", f"{hidden}/", recursive=True)
        rename(file_system, hidden, path)
    except BaseException:
        if file_system.exists(hidden):
            file_system.rm(hidden, recursive=True)
        raise


def seal(uri: str, *, each: Each = map) -> None:
    """Write the checksums of a finished directory's files into it.

    Args:
        uri: the directory, on any file system.
        each: has the files read.
    """
    file_system, path = open_filesystem(f"{uri}/{CHECKSUMS}")
    file_system.pipe_file(path, _json(digests(uri, each=each)).encode())


def holds(uri: str, part: str, *, setting: str) -> bool:
    """Whether a model directory has a file, or files below a folder (`als/`), by its checksums.

    Raises:
        UserError: it is no model directory.
    """
    return any(name == part or (part[-1] == "/" and name.startswith(part)) for name in _expected(uri, setting))


def verify(uri: str, *, part: str, setting: str, each: Each = map) -> None:
    """Compare every file of a model directory with its checksum, in place.

    Args:
        uri: the model directory.
        part: what it has to hold, `MODEL` or `ALS`.
        setting: what named it, for the error.
        each: has the files read.

    Raises:
        UserError: no model directory, one of another job, or a file that is changed, missing or unknown.
    """
    _require(uri, part, setting)
    _compare(_expected(uri, setting), digests(uri, each=each), uri, setting)


@contextmanager
def verified(uri: str, *, setting: str, part: str | None = None) -> Iterator[Path]:
    """A local copy of a model directory whose every file matches its checksum.

    Args:
        uri: the model directory.
        setting: what named it, for the error.
        part: what it has to hold, such as `MODEL`; None is anything.

    Raises:
        UserError: no model directory, one of another job, or a file that is changed, missing or unknown.
    """
    if part is not None:
        _require(uri, part, setting)
    expected = _expected(uri, setting)
    file_system, path = open_filesystem(uri)
    with tempfile.TemporaryDirectory(prefix="insitu-") as scratch:
        local = Path(scratch) / "model"
        with in_scratch(scratch):
            file_system.get(path, str(local), recursive=True)
        _compare(expected, digests(str(local), each=map), uri, setting)
        yield local


def identity(uri: str) -> str:
    """What names a model directory wherever it lies: 12 hex digits, of its checksums' SHA-256."""
    return _sha256(f"{uri.rstrip('/')}/{CHECKSUMS}")[:12]


def digests(uri: str, *, each: Each) -> dict[str, str]:
    """The hex SHA-256 of each file below a directory, by its name from there, or of one file.

    The checksums of a model directory and Hadoop's `.crc` files are left out.
    """
    file_system, root = open_filesystem(uri)
    names = sorted(path.removeprefix(root).lstrip("/") for path in file_system.find(root))
    names = [name for name in names if name != CHECKSUMS and not name.endswith(".crc")]
    places = [f"{uri.rstrip('/')}/{name}".rstrip("/") for name in names]
    return dict(zip(names, each(_sha256, places), strict=True))


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
    path.write_text(_json(value))


def upload(local: Path, uri: str) -> None:
    """Copy a local file to a URI so that it appears whole, in the place of what is there."""
    file_system, path = open_filesystem(uri)
    file_system.put_file(str(local), f"{path}.part")
    rename(file_system, f"{path}.part", path, overwrite=True)


def download(uri: str, local: Path) -> None:
    file_system, path = open_filesystem(uri)
    file_system.get_file(path, str(local))


def _expected(uri: str, setting: str) -> dict[str, str]:
    """The SHA-256 of each file, as the model directory itself says."""
    file_system, path = open_filesystem(f"{uri.rstrip('/')}/{CHECKSUMS}")
    try:
        return json.loads(file_system.cat_file(path))
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(
            setting, f"{uri} is no model directory (it has no {CHECKSUMS})", "name the --output of a training job"
        ) from None
    except ValueError:
        raise UserError(setting, f"{uri}: {CHECKSUMS} is not what was written (it is not JSON)", _RESTORE) from None


def _require(uri: str, part: str, setting: str) -> None:
    if not holds(uri, part, setting=setting):
        raise UserError(setting, f"{uri} holds no {part}", f"name the --output of {_JOBS[part]}")


def _compare(expected: dict[str, str], found: dict[str, str], uri: str, setting: str) -> None:
    for name in sorted({*expected, *found}):
        if name not in expected:
            fault = "is not in its checksums"
        elif name not in found:
            fault = "is missing"
        elif found[name] != expected[name]:
            fault = "is not what was written (its SHA-256 differs)"
        else:
            continue
        raise UserError(setting, f"{uri}: {name} {fault}", _RESTORE)


def _sha256(uri: str) -> str:
    file_system, path = open_filesystem(uri)
    digest = hashlib.sha256()
    with file_system.open(path, "rb") as source:
        while block := source.read(_BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()


def _json(value: Any) -> str:
    return json.dumps(value, indent=2) + "\n"
