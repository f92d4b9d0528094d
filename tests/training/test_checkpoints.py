"""Checkpoints on a real file system, also a damaged and a full one."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from insitu.training.checkpoints import Checkpoint, CheckpointStore


def checkpoint(step: int) -> Checkpoint:
    weights = [np.full((3, 2), step, np.float32), np.arange(5)]
    return Checkpoint(step=step, weights=weights, optimizer=[np.array(step)], state={"record": {"history": [step]}})


def same(ours: Checkpoint, theirs: Checkpoint) -> bool:
    one, other = ([*found.weights, *found.optimizer, *found.best_weights] for found in (ours, theirs))
    arrays = all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))
    return arrays and (ours.step, ours.state) == (theirs.step, theirs.state)


@pytest.fixture
def store(tmp_path: Path) -> CheckpointStore:
    return CheckpointStore(f"file://{tmp_path}/checkpoints", keep=3)


@pytest.fixture
def words() -> list[str]:
    return []


def test_no_checkpoint(store: CheckpointStore, words: list[str]) -> None:
    assert store.newest(words.append) is None


def test_newest_is_read_as_it_was_written(store: CheckpointStore, words: list[str]) -> None:
    for step in (9, 10, 200):
        store.save(checkpoint(step))
    newest = store.newest(words.append)
    assert newest is not None and same(newest, checkpoint(200))
    assert words == []


def test_oldest_ones_go(store: CheckpointStore, tmp_path: Path) -> None:
    for step in range(7):
        store.save(checkpoint(step))
    assert store.steps() == [4, 5, 6]
    assert len(list((tmp_path / "checkpoints").iterdir())) == 3


@pytest.mark.parametrize("damage", ["cut", "changed", "missing", "no checksums"])
def test_damaged_one_is_skipped_with_a_word(
    store: CheckpointStore, words: list[str], tmp_path: Path, damage: str
) -> None:
    store.save(checkpoint(1))
    store.save(checkpoint(2))
    file = tmp_path / "checkpoints/step-0000000002" / ("checksums.json" if damage == "no checksums" else "weights.npz")
    content = file.read_bytes()
    file.unlink()
    if damage in ("cut", "changed"):
        file.write_bytes(content[:-1] + (b"" if damage == "cut" else bytes([content[-1] ^ 1])))
    newest = store.newest(words.append)
    assert newest is not None and same(newest, checkpoint(1))
    (word,) = words
    assert word.startswith("skipped checkpoint file://") and "step-0000000002" in word


def test_damaged_ones_do_not_push_out_a_new_one(store: CheckpointStore, words: list[str], tmp_path: Path) -> None:
    for step in (480, 490, 500):
        store.save(checkpoint(step))
        (tmp_path / f"checkpoints/step-0000000{step}/state.json").unlink()
    store.save(checkpoint(10))
    newest = store.newest(words.append)
    assert newest is not None and same(newest, checkpoint(10))


def test_damaged_one_is_written_anew(store: CheckpointStore, words: list[str], tmp_path: Path) -> None:
    store.save(checkpoint(2))
    (tmp_path / "checkpoints/step-0000000002/state.json").unlink()
    store.save(checkpoint(2))
    newest = store.newest(words.append)
    assert newest is not None and same(newest, checkpoint(2))


def test_full_disk_is_told_and_leaves_the_older_one_alone(small_disk: Callable[[str], Path], words: list[str]) -> None:
    disk = small_disk("256k")
    store = CheckpointStore(f"file://{disk}/checkpoints", keep=3)
    store.save(checkpoint(1))
    with pytest.raises(OSError, match="No space left on device"):
        store.save(Checkpoint(step=2, weights=[np.zeros(100_000)], optimizer=[]))
    assert store.steps() == [1]
    assert [path.name for path in (disk / "checkpoints").iterdir()] == ["step-0000000001"]
    newest = store.newest(words.append)
    assert newest is not None and same(newest, checkpoint(1))
