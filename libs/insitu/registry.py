"""A registry: the models that a place scores with, which of them is current, and which was so before.

REGISTRY/versions/0003-1f2e3d4c5b6a         a whole model directory, called by its number and its identity
REGISTRY/records/0003-1f2e3d4c5b6a.json     what it was compared with when it was promoted, and how it did
REGISTRY/current.json                       {"current": "0003-1f2e3d4c5b6a", "previous": "0002-…"}

`current.json` is replaced in one step, after all that it names is there: a job that is killed leaves the old one.
"""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from insitu import artifact
from insitu.cluster.filesystem import FILE_SYSTEM_ERRORS, open_filesystem, overwrite, qualify
from insitu.cluster.lock import Lock, locked
from insitu.errors import UserError

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

_VERSIONS = "versions"
_POINTER = "current.json"
_NAME = re.compile(r"(?P<number>\d+)-[0-9a-f]{12}")


@dataclass(frozen=True)
class Standing:
    """Names of a registry's versions; None where there is none."""

    current: str | None = None
    previous: str | None = None


class Registry:
    """A registry, on any file system; it need not be there yet.

    Args:
        uri: its folder.
        setting: what the user called it, for errors.
    """

    def __init__(self, uri: str, *, setting: str) -> None:
        self.uri = uri.rstrip("/")
        self._setting = setting

    def exists(self) -> bool:
        file_system, path = open_filesystem(f"{self.uri}/{_VERSIONS}")
        return file_system.exists(path)

    def check(self) -> None:
        """Raise `UserError` where the folder holds something else."""
        file_system, path = open_filesystem(self.uri)
        if not self.exists() and file_system.exists(path) and file_system.ls(path, detail=False):
            raise UserError(self._setting, f"{self.uri} is no registry", "name one, or a folder that is new or empty")

    def version(self, name: str) -> str:
        """The URI of a version's model directory."""
        return f"{self.uri}/{_VERSIONS}/{name}"

    def standing(self) -> Standing:
        """Which versions are current and previous.

        Raises:
            UserError: `current.json` is not what was written.
        """
        file_system, path = open_filesystem(f"{self.uri}/{_POINTER}")
        try:
            return Standing(**json.loads(file_system.cat_file(path)))
        except FileNotFoundError:
            return Standing()
        except (ValueError, TypeError):
            mend = f'write {{"current": …, "previous": …}} into it, with names of {self.uri}/{_VERSIONS}'
            raise UserError(self._setting, f"{self.uri}/{_POINTER} is not what was written", mend) from None

    def current(self) -> str:
        """The URI of the current version.

        Raises:
            UserError: there is none.
        """
        name = self.standing().current
        if name is None:
            problem = f"{self.uri} is a registry without a current version"
            raise UserError(self._setting, problem, "promote a model into it by insitu promote")
        return self.version(name)

    def record(self, name: str) -> dict[str, Any]:
        """What `promote` was given with a version."""
        file_system, path = open_filesystem(self._record(name))
        return json.loads(file_system.cat_file(path))

    def promote(self, directory: Path, record: dict[str, Any], *, compared_with: Standing) -> Standing:
        """Copy a model directory into the registry and make it the current version.

        Args:
            directory: local and verified.
            record: plain JSON values, which stay with the version.
            compared_with: how the registry stood when the model was compared.

        Raises:
            UserError: the registry stands otherwise meanwhile, another job is changing it, or it cannot be written.
        """
        with self._changing() as lock:
            if self.standing() != compared_with:
                problem = f"the current version of {self.uri} changed while the candidate was compared"
                raise UserError(self._setting, problem, "give the same command again, to compare with the new one")
            name = f"{self._next_number():04d}-{artifact.identity(str(directory))}"
            artifact.publish(directory, self.version(name))
            self._make_folder("records")
            overwrite(self._record(name), json.dumps(record, indent=2).encode())
            return self._point(lock, Standing(name, compared_with.current))

    def roll_back(self) -> Standing:
        """Make the previous version current, and the current one previous.

        Raises:
            UserError: there is no previous version or it is damaged, another job is changing the registry, or it
                cannot be written.
        """
        if not self.exists():
            raise UserError(self._setting, f"{self.uri} is no registry", "name the --registry of insitu promote")
        with self._changing() as lock:
            before = self.standing()
            if before.previous is None:
                problem = f"{self.uri} has no previous version to go back to"
                raise UserError(self._setting, problem, "promote another model by insitu promote")
            artifact.verify(self.version(before.previous), part=artifact.MODEL, setting=self._setting)
            return self._point(lock, Standing(before.previous, before.current))

    @contextmanager
    def _changing(self) -> Iterator[Lock]:
        """While this job alone changes the registry; what a killed one was copying is removed."""
        try:
            self._make_folder(_VERSIONS)
            with locked(f"{self.uri}/lock", setting=self._setting, output=self.uri) as lock:
                file_system, path = open_filesystem(f"{self.uri}/{_VERSIONS}")
                for entry in file_system.ls(path, detail=False):
                    if _last(entry).startswith("."):
                        file_system.rm(entry, recursive=True)
                yield lock
        except FILE_SYSTEM_ERRORS as error:
            mend = "free space or wait for it, then give the same command again; its current version is what it was"
            raise UserError(self._setting, f"{self.uri} cannot be written ({error})", mend) from None

    def _make_folder(self, name: str) -> None:
        file_system, path = open_filesystem(f"{self.uri}/{name}")
        file_system.makedirs(path, exist_ok=True)

    def _next_number(self) -> int:
        file_system, path = open_filesystem(f"{self.uri}/{_VERSIONS}")
        names = (_NAME.fullmatch(_last(entry)) for entry in file_system.ls(path, detail=False))
        return max((int(name["number"]) for name in names if name), default=0) + 1

    def _point(self, lock: Lock, standing: Standing) -> Standing:
        lock.check()
        overwrite(f"{self.uri}/{_POINTER}", json.dumps(asdict(standing)).encode())
        return standing

    def _record(self, name: str) -> str:
        return f"{self.uri}/records/{name}.json"


def find_model(spark: "SparkSession", setting: str, path: str) -> str:
    """The full URI of a model directory; of a registry, that of its current version.

    Args:
        spark: the session that resolves paths.
        setting: what named it, for errors.
        path: of either.

    Raises:
        UserError: Spark cannot resolve the path, or a registry has no current version.
    """
    uri = qualify(spark, setting, path)
    registry = Registry(uri, setting=setting)
    return registry.current() if registry.exists() else uri


def _last(path: str) -> str:
    return path.rstrip("/").rpartition("/")[2]
