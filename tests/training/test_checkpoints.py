"""Checkpoints on a real file system, also a damaged and a full one."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from insitu.cluster import filesystem
from insitu.training.checkpoints import Checkpoint, CheckpointStore


def checkpoint(step: int) -> Checkpoint:
    weights = [np.full((3, 2), step, np.float32), np.arange(5)]
    return Checkpoint(step=step, weights=weights, optimizer=[np.array(step)], state={"record": {"history": [step]}})


def same(ours: Checkpoint, theirs: Checkpoint) -> bool:
    one, other = ([*found.weights, *found.optimizer, *found.best_weights] for found in (ours, theirs))
    arrays = all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))
    return arrays and (ours.step, ours.state) == (theirs.step, theirs.state)


def store_in(run: Path) -> CheckpointStore:
    (run / "run.json").write_text("{}")
    return CheckpointStore(f"file://{run}/checkpoints", keep=3)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    run = tmp_path / "model.run"
    run.mkdir()
    return run


@pytest.fixture
def store(run: Path) -> CheckpointStore:
    return store_in(run)


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


def test_a_copy_by_hand_is_none(store: CheckpointStore, words: list[str], run: Path) -> None:
    store.save(checkpoint(9))
    (run / "checkpoints/step-0000000010.bak").mkdir()
    store.save(checkpoint(11))
    assert store.steps() == [9, 11]


def test_oldest_ones_go(store: CheckpointStore, run: Path) -> None:
    for step in range(7):
        store.save(checkpoint(step))
    assert store.steps() == [4, 5, 6]
    assert len(list((run / "checkpoints").iterdir())) == 3


@pytest.mark.parametrize("damage", ["cut", "changed", "missing", "no checksums"])
def test_damaged_one_is_skipped_with_a_word(store: CheckpointStore, words: list[str], run: Path, damage: str) -> None:
    store.save(checkpoint(1))
    store.save(checkpoint(2))
    file = run / "checkpoints/step-0000000002" / ("checksums.json" if damage == "no checksums" else "weights.npz")
    content = file.read_bytes()
    file.unlink()
    if damage in ("cut", "changed"):
        file.write_bytes(content[:-1] + (b"" if damage == "cut" else bytes([content[-1] ^ 1])))
    newest = store.newest(words.append)
    assert newest is not None and same(newest, checkpoint(1))
    (word,) = words
    assert word.startswith("skipped checkpoint file://") and "step-0000000002" in word


def test_damaged_ones_do_not_push_out_a_new_one(store: CheckpointStore, words: list[str], run: Path) -> None:
    for step in (480, 490, 500):
        store.save(checkpoint(step))
        (run / f"checkpoints/step-0000000{step}/state.json").unlink()
    store.save(checkpoint(10))
    newest = store.newest(words.append)
    assert newest is not None and same(newest, checkpoint(10))


def test_later_ones_are_left_alone(store: CheckpointStore, words: list[str]) -> None:
    for step in (10, 20, 5):
        store.save(checkpoint(step))
    assert store.steps() == [5, 10, 20]


def test_unreadable_one_is_skipped_with_a_word(
    store: CheckpointStore, words: list[str], run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(filesystem, "_RETRY_SECONDS", 0)
    store.save(checkpoint(1))
    store.save(checkpoint(2))
    file = run / "checkpoints/step-0000000002/checksums.json"
    file.unlink()
    file.symlink_to(file)
    newest = store.newest(words.append)
    assert newest is not None and same(newest, checkpoint(1))
    (word,) = words
    assert "step-0000000002: it cannot be read ([Errno 40] Too many levels of symbolic links" in word


def test_directory_that_is_away_is_not_an_empty_one(store: CheckpointStore, words: list[str], run: Path) -> None:
    store.save(checkpoint(1))
    run.rename(run.with_name("away"))
    with pytest.raises(FileNotFoundError):
        store.newest(words.append)
    with pytest.raises(FileNotFoundError):
        store.save(checkpoint(2))
    assert words == [] and not run.exists()
    run.with_name("away").rename(run)
    newest = store.newest(words.append)
    assert newest is not None and same(newest, checkpoint(1))


def test_damage_is_not_believed_of_a_run_whose_directory_cannot_be_read(
    store: CheckpointStore, words: list[str], run: Path
) -> None:
    store.save(checkpoint(1))
    (run / "checkpoints/step-0000000001/checksums.json").unlink()
    (run / "run.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"run\.json"):
        store.newest(words.append)
    assert words == []


def test_checkpoint_that_was_written_has_to_be_there(store: CheckpointStore, words: list[str]) -> None:
    store.save(checkpoint(1))
    with pytest.raises(FileNotFoundError, match=r"checkpoints does not show the checkpoint of step 2"):
        store.newest(words.append, at_least=2)


def test_damaged_one_is_written_anew(store: CheckpointStore, words: list[str], run: Path) -> None:
    store.save(checkpoint(2))
    (run / "checkpoints/step-0000000002/state.json").unlink()
    store.save(checkpoint(2))
    newest = store.newest(words.append)
    assert newest is not None and same(newest, checkpoint(2))


def test_full_disk_is_told_and_leaves_the_older_one_alone(small_disk: Callable[[str], Path], words: list[str]) -> None:
    disk = small_disk("256k")
    store = store_in(disk)
    store.save(checkpoint(1))
    with pytest.raises(OSError, match="No space left on device"):
        store.save(Checkpoint(step=2, weights=[np.zeros(100_000)], optimizer=[]))
    assert store.steps() == [1]
    assert [path.name for path in (disk / "checkpoints").iterdir()] == ["step-0000000001"]
    newest = store.newest(words.append)
    assert newest is not None and same(newest, checkpoint(1))
