"""The registry: what is current, what was, and that no kill, race or damage leaves it between two states."""

import json
import multiprocessing
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from insitu import artifact, registry
from insitu.cluster.lock import locked
from insitu.errors import UserError
from insitu.registry import Registry, Standing
from insitu.scoring.promote import roll_back


@pytest.fixture
def home(tmp_path: Path) -> Registry:
    return Registry(f"file://{tmp_path}/registry", setting="--registry")


@pytest.fixture
def model(tmp_path: Path) -> Callable[[str], Path]:
    """Makes a model directory whose network, which nobody loads here, is a word."""

    def make(word: str) -> Path:
        source = tmp_path / f"{word} source"
        source.mkdir()
        (source / artifact.MODEL).write_text(word)
        artifact.publish(source, f"file://{tmp_path}/{word}")
        return tmp_path / word

    return make


def promote(home: Registry, directory: Path) -> Standing:
    return home.promote(directory, {"candidate": directory.name}, compared_with=home.standing())


def killed_at(step: Callable[[], object], module: object, name: str) -> None:
    """Run a step in a process that is killed by SIGKILL when it calls a function."""

    def run() -> None:
        setattr(module, name, lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL))
        step()

    process = multiprocessing.get_context("fork").Process(target=run)
    process.start()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL


def test_versions_follow_each_other_and_are_whole_copies(home: Registry, model: Callable[[str], Path]) -> None:
    assert not home.exists()
    first, second = model("first"), model("second")
    one = promote(home, first)
    assert one == Standing(f"0001-{artifact.identity(str(first))}", None)
    two = promote(home, second)
    assert two == home.standing() == Standing(f"0002-{artifact.identity(str(second))}", one.current)
    assert home.current() == home.version(two.current or "")
    with artifact.verified(home.current(), setting="--model", part=artifact.MODEL) as copy:
        assert (copy / artifact.MODEL).read_text() == "second"
    assert home.record(two.current or "") == {"candidate": "second"}


def test_rollback_swaps_and_swaps_back(home: Registry, model: Callable[[str], Path]) -> None:
    one, two = (promote(home, model(word)).current for word in ("first", "second"))
    summary = roll_back(home.uri)
    assert summary == {"registry": home.uri, "current": one, "previous": two}
    assert home.standing() == Standing(one, two)
    roll_back(home.uri.removeprefix("file://"))
    assert home.standing() == Standing(two, one)


def test_rollback_needs_a_whole_previous_version(home: Registry, model: Callable[[str], Path]) -> None:
    with pytest.raises(UserError, match=r"REGISTRY: .*/registry is no registry; name the --registry of"):
        roll_back(home.uri)
    assert not home.exists()
    one = promote(home, model("first")).current
    with pytest.raises(UserError, match=r"REGISTRY: .* has no previous version to go back to"):
        roll_back(home.uri)
    standing = promote(home, model("second"))
    Path(home.version(one or "").removeprefix("file://"), artifact.MODEL).write_text("changed")
    with pytest.raises(UserError, match=r"REGISTRY: .*0001-\w+: model\.keras is not what was written"):
        roll_back(home.uri)
    assert home.standing() == standing


def test_a_kill_while_copying_leaves_the_old_version(home: Registry, model: Callable[[str], Path]) -> None:
    before, directory = promote(home, model("first")), model("second")
    killed_at(lambda: promote(home, directory), artifact, "rename")
    versions = Path(home.uri.removeprefix("file://"), "versions")
    assert sum(path.name.startswith(".0002-") for path in versions.iterdir()) == 1
    assert home.standing() == before
    after = promote(home, directory)
    assert sorted(path.name for path in versions.iterdir()) == [after.previous, after.current]


def test_a_kill_between_copy_and_pointer_leaves_the_old_version(home: Registry, model: Callable[[str], Path]) -> None:
    before, directory = promote(home, model("first")), model("second")
    killed_at(lambda: promote(home, directory), registry, "overwrite")
    assert home.standing() == before
    after = promote(home, directory)
    assert (after.current or "").startswith("0003-")
    assert after.previous == before.current


def test_of_two_promotions_at_once_none_is_lost(home: Registry, model: Callable[[str], Path]) -> None:
    compared_with = promote(home, model("first"))
    after = home.promote(model("second"), {}, compared_with=compared_with)
    with pytest.raises(UserError, match=r"--registry: the current version of .* changed while the candidate was"):
        home.promote(model("third"), {}, compared_with=compared_with)
    with (
        locked(f"{home.uri}/lock", setting="--registry", output="it"),
        pytest.raises(UserError, match=r"--registry: .* is being written by another job"),
    ):
        home.promote(model("fourth"), {}, compared_with=after)
    assert home.standing() == after


def test_mistakes_are_named(home: Registry, model: Callable[[str], Path], tmp_path: Path) -> None:
    home.check()
    directory = model("first")
    with pytest.raises(UserError, match=r"--registry: .*/first is no registry; name one, or a folder that is new"):
        Registry(f"file://{directory}", setting="--registry").check()
    promote(home, directory)
    pointer = tmp_path / "registry/current.json"
    pointer.write_text(json.dumps(["0001"]))
    with pytest.raises(UserError, match=r"--registry: .*current\.json is not what was written; write"):
        home.current()
    pointer.unlink()
    with pytest.raises(UserError, match=r"--registry: .* is a registry without a current version; promote a model"):
        home.current()


def test_a_full_disk_leaves_the_old_version(
    model: Callable[[str], Path], small_disk: Callable[[str], Path], tmp_path: Path
) -> None:
    home = Registry(f"file://{small_disk('512k')}/registry", setting="--registry")
    before = promote(home, model("first"))
    large = tmp_path / "large source"
    large.mkdir()
    (large / artifact.MODEL).write_bytes(bytes(2**20))
    artifact.publish(large, f"file://{tmp_path}/large")
    with pytest.raises(UserError, match=r"--registry: .* cannot be written \(.*No space left on device"):
        promote(home, tmp_path / "large")
    assert home.standing() == before
