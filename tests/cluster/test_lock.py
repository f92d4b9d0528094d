import json
import multiprocessing
import resource
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from insitu.cluster import lock
from insitu.cluster.lock import locked
from insitu.errors import UserError


def take(uri: str, seconds: float) -> None:
    with locked(uri, setting="--output", output="out"):
        time.sleep(seconds)


@pytest.fixture
def uri(tmp_path: Path) -> str:
    return f"file://{tmp_path}/state/lock"


def test_the_second_is_told_who_is_first(uri: str, tmp_path: Path) -> None:
    with (
        locked(uri, setting="--output", output="out"),
        pytest.raises(
            UserError, match=r"--output: out is being written by another job \(\w+ on \S+, process \d+, since"
        ),
    ):
        take(uri, 0)
    take(uri, 0)
    assert list((tmp_path / "state").iterdir()) == []


def test_a_killed_owner_is_followed(uri: str, capsys: pytest.CaptureFixture[str]) -> None:
    owner = multiprocessing.get_context("fork").Process(target=take, args=(uri, 60))
    owner.start()
    path = Path(uri.removeprefix("file://"))
    while not path.exists() or not path.stat().st_size:
        time.sleep(0.01)
    with pytest.raises(UserError, match=f"process {owner.pid}"):
        take(uri, 0)
    owner.kill()
    owner.join()
    take(uri, 0)
    assert f"process {owner.pid} on" in capsys.readouterr().err


@pytest.fixture
def elsewhere(uri: str, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Writes the lock, as its owner on another host does, whose clock may be some seconds before or behind."""
    monkeypatch.setattr(lock, "STALE_SECONDS", 1)
    monkeypatch.setattr(lock, "BEAT_SECONDS", 0.4)
    monkeypatch.setattr(lock, "_LOOK_SECONDS", 0.1)
    path = Path(uri.removeprefix("file://"))
    path.parent.mkdir()
    place = {"user": "ada", "host": "elsewhere", "processes": "y", "pid": 1, "started": "1"}
    owner = {"id": "x", "since": "2024-02-29T00:00:00Z", **place}

    def beat(clock: float = 0) -> None:
        path.write_text(json.dumps(owner | {"beat": time.time() + clock}))

    return beat


@pytest.mark.parametrize("clock", [0, -3600, 3600])
def test_an_owner_elsewhere_that_stopped_writing_is_waited_for_and_followed(
    uri: str, elsewhere: Callable[..., None], capsys: pytest.CaptureFixture[str], clock: float
) -> None:
    elsewhere(clock)
    take(uri, 0)
    said = capsys.readouterr().err
    assert "out is locked (ada on elsewhere, process 1, since 2024-02-29T00:00:00Z); for 1 s it is seen" in said
    assert "process 1 on elsewhere left out locked and is gone" in said
    assert not Path(uri.removeprefix("file://")).exists()


@pytest.mark.parametrize("clock", [0, -3600, 3600])
def test_an_owner_elsewhere_that_writes_is_told(uri: str, elsewhere: Callable[..., None], clock: float) -> None:
    elsewhere(clock)
    timer = threading.Timer(0.4, elsewhere, [clock])
    timer.start()
    with pytest.raises(UserError, match=r"ada on elsewhere, process 1, since 2024-02-29T00:00:00Z"):
        take(uri, 0)
    timer.join()


def test_a_lock_that_was_never_written_is_followed(uri: str) -> None:
    path = Path(uri.removeprefix("file://"))
    path.parent.mkdir()
    path.touch()
    take(uri, 0)
    assert not path.exists()


def test_a_lock_that_cannot_be_written_for_a_while_is_still_held(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "BEAT_SECONDS", 0.05)
    path = Path(uri.removeprefix("file://"))
    with locked(uri, setting="--output", output="out") as held:
        first = path.read_text()
        limit = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, limit[1]))
        try:
            time.sleep(0.3)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limit)
        held.check()
        deadline = time.monotonic() + 10
        while path.read_text() == first:
            assert time.monotonic() < deadline, "it is not written any more"
            time.sleep(0.01)


def test_a_file_system_that_is_away_hides_no_other_end(
    uri: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="143"), locked(uri, setting="--output", output="out"):
        (tmp_path / "state").rename(tmp_path / "away")
        (tmp_path / "state").touch()
        raise SystemExit(143)
    assert f"lock: {uri} stays there ([Errno 20] Not a directory" in capsys.readouterr().err


def test_a_lock_lives_while_its_job_does(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "BEAT_SECONDS", 0.05)
    with locked(uri, setting="--output", output="out"):
        path = Path(uri.removeprefix("file://"))
        beats = set()
        for _ in range(40):
            beats.add(json.loads(path.read_text() or "{}").get("beat"))
            time.sleep(0.05)
    assert len(beats - {None}) > 3
