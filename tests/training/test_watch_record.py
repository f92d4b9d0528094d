"""What a run leaves on its file system while it runs, read back as its readers read it."""

import json
import re
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from insitu.training.engines.base import Event
from insitu.training.watch_record import RunRecord
from training.run_events import attempt, epoch, start, step

TIMEOUT_SECONDS = 20


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def without_name(event: Event) -> dict[str, Any]:
    return {name: value for name, value in event.items() if name != "event"}


@st.composite
def disturbed_runs(draw: st.DrawFn) -> tuple[int, int, list[tuple[int, int, bool]]]:
    """Epochs, steps an epoch, and attempts: first and last step, and whether a new driver resumes."""
    epochs, steps = draw(st.integers(1, 4)), draw(st.integers(1, 4))
    attempts, reached = [], 0
    for _ in range(draw(st.integers(0, 4))):
        first = draw(st.integers(0, reached))
        reached = draw(st.integers(first, epochs * steps))
        attempts.append((first, reached, draw(st.booleans())))
    return epochs, steps, [*attempts, (draw(st.integers(0, reached)), epochs * steps, draw(st.booleans()))]


@settings(max_examples=60)
@given(disturbed_runs())
@example((2, 3, [(0, 5, False), (3, 4, True), (2, 6, False)]))
def test_history_after_any_restarts_is_that_of_an_undisturbed_run(
    run: tuple[int, int, list[tuple[int, int, bool]]],
) -> None:
    epochs, steps, attempts = run
    told: list[str] = []
    with tempfile.TemporaryDirectory() as directory:
        record = RunRecord(directory, started=time.time(), tell=told.append)
        for first, last, resumed in attempts:
            if resumed:
                record.close()
                record = RunRecord(directory, started=time.time(), tell=told.append)
            for event in attempt(first, last, epochs=epochs, steps=steps):
                record(event)
            assert record.history == [without_name(epoch(number, steps=steps)) for number in range(last // steps)]
        record.close()
        expected = [without_name(epoch(number, steps=steps)) for number in range(epochs)]
        assert record.history == expected
        assert lines(Path(directory, "history.jsonl")) == expected
        kept = lines(Path(directory, "steps.jsonl"))
        numbers = [line["step"] for line in kept]
        assert numbers == sorted(set(numbers)) and numbers[0] == 1
        assert kept == [without_name(step(number, steps=steps)) for number in numbers]
    assert told == []


def test_a_damaged_line_costs_itself_alone(tmp_path: Path) -> None:
    told: list[str] = []
    with closing(RunRecord(str(tmp_path), started=time.time(), tell=told.append)) as record:
        for event in attempt(0, 4, epochs=2, steps=2):
            record(event)
    history = tmp_path / "history.jsonl"
    history.write_text(history.read_text()[:-9])
    with closing(RunRecord(str(tmp_path), started=time.time(), tell=told.append)) as record:
        assert record.history == [without_name(epoch(0, steps=2))]
    assert told == [f"{history}: a line is damaged and left out"]


def test_a_driver_that_goes_on_keeps_what_the_ones_before_did(tmp_path: Path) -> None:
    """One was killed while it read the data: it has no step."""
    began = time.time() - 3600
    restart = {"step": 20, "reason": "killed", "seconds": 7.0}
    killed, one, other = ({"rank": rank, "host": host} for rank, host in ((0, "a"), (0, "b"), (1, "a")))
    with closing(RunRecord(str(tmp_path), started=began, tell=pytest.fail)) as record:
        for event in (
            start(),
            {"event": "worker", **killed},
            {"event": "restart", "attempt": 1, "of": 3, **restart},
            start(20),
            *({"event": "worker", **worker} for worker in (other, one)),
        ):
            record(event)
    RunRecord(str(tmp_path), started=began + 1800, tell=pytest.fail).close()
    with closing(RunRecord(str(tmp_path), started=began + 2700, tell=pytest.fail)) as record:
        record(start(50))
        assert record.began == began
    first, last = lines(tmp_path / "drivers.jsonl")
    assert first == {
        "started": began,
        "first_step": 0,
        "workers": [one, other],
        "restarts": [restart],
        "seconds": pytest.approx(3600, abs=60),
    }
    assert (last["started"], last["first_step"], last["restarts"]) == (began + 2700, 50, [])
    assert last["seconds"] == pytest.approx(900, abs=60)


def test_steps_are_thinned_to_one_in_ten_seconds(tmp_path: Path) -> None:
    with closing(RunRecord(str(tmp_path), started=time.time(), tell=pytest.fail)) as record:
        record(start())
        for number in range(1, 42):
            record(step(number, seconds=number - 0.5))
    assert [line["seconds"] for line in lines(tmp_path / "steps.jsonl")] == [0.5, 10.5, 20.5, 30.5, 40.5]


def test_record_is_uploaded_every_minute_and_after_each_epoch(tmp_path: Path) -> None:
    with closing(RunRecord(str(tmp_path), started=time.time(), tell=pytest.fail)) as record:
        history, steps = tmp_path / "history.jsonl", tmp_path / "steps.jsonl"
        for event in (start(), step(1, seconds=1.0)):
            record(event)
        until(lambda: steps.exists() and len(lines(steps)) == 1, poll=record)
        settle(record)
        record(step(2, seconds=60.9))
        record(step(3, seconds=61.1))
        until(lambda: len(lines(steps)) == 2, poll=record)
        record(epoch(0))
        until(lambda: len(lines(history)) == 1, poll=record)


def test_reader_never_sees_half_a_line(tmp_path: Path) -> None:
    seen, ended = [0], threading.Event()

    def read() -> None:
        while not ended.is_set():
            if (tmp_path / "history.jsonl").exists():
                seen.append(len(lines(tmp_path / "history.jsonl")))

    reader = threading.Thread(target=read)
    reader.start()
    try:
        with closing(RunRecord(str(tmp_path), started=time.time(), tell=pytest.fail)) as record:
            record(start(epochs=300, steps=1))
            for number in range(300):
                record(epoch(number, steps=1))
    finally:
        ended.set()
        reader.join()
    assert seen == sorted(seen)
    assert len(lines(tmp_path / "history.jsonl")) == 300


def test_tensorboard_reads_the_scalars_by_step_and_forgets_what_a_restart_repeats(tmp_path: Path) -> None:
    with closing(RunRecord(str(tmp_path), started=time.time(), tell=pytest.fail)) as record:
        for event in attempt(0, 5, epochs=3, steps=2):
            record(event)
    with closing(RunRecord(str(tmp_path), started=time.time(), tell=pytest.fail)) as record:
        for event in attempt(3, 4, epochs=3, steps=2) + attempt(2, 6, epochs=3, steps=2):
            record(event)
    assert len(list((tmp_path / "tensorboard").iterdir())) == 2
    board = EventAccumulator(str(tmp_path / "tensorboard"))
    board.Reload()
    scalars = {tag: {point.step: point.value for point in board.Scalars(tag)} for tag in board.Tags()["scalars"]}
    assert sorted(scalars) == [
        "images_per_second",
        "learning_rate",
        "loss",
        "validation/accuracy",
        "validation/auc_macro",
        "validation/loss",
    ]
    assert [point.step for point in board.Scalars("loss")] == [1, 2, 3, 4, 5, 6]
    assert [point.step for point in board.Scalars("validation/loss")] == [2, 4, 6]
    assert scalars["loss"] == pytest.approx({number: 1 / number for number in range(1, 7)})
    assert scalars["images_per_second"] == {number: 120 + number for number in range(1, 7)}
    assert scalars["validation/auc_macro"] == pytest.approx({2: 0.9, 4: 0.9, 6: 0.9})


def test_running_tensorboard_follows(tmp_path: Path) -> None:
    board = EventAccumulator(str(tmp_path / "tensorboard"))

    def points() -> int:
        board.Reload()
        return len(board.Scalars("validation/loss")) if board.Tags()["scalars"] else 0

    with closing(RunRecord(str(tmp_path), started=time.time(), tell=pytest.fail)) as record:
        record(start())
        until(lambda: any(tmp_path.glob("tensorboard/*")), poll=record)
        record(epoch(0))
        until(lambda: points() == 1, poll=record)
        record(epoch(1))
        until(lambda: points() == 2, poll=record)


def test_undefined_auc_has_no_scalar(tmp_path: Path) -> None:
    with closing(RunRecord(str(tmp_path), started=time.time(), tell=pytest.fail)) as record:
        record(epoch(0, auc=None))
    board = EventAccumulator(str(tmp_path / "tensorboard"))
    board.Reload()
    assert board.Tags()["scalars"] == ["validation/loss", "validation/accuracy"]
    assert lines(tmp_path / "history.jsonl")[0]["validation"]["auc_macro"] is None


def test_file_system_that_goes_away_and_comes_back_loses_nothing_and_is_told_once_each(tmp_path: Path) -> None:
    place, away = tmp_path / "run", tmp_path / "away"
    place.mkdir()
    told: list[str] = []
    with closing(RunRecord(str(place), started=time.time(), tell=told.append)) as record:
        record(start())
        record(epoch(0))
        until(lambda: (place / "history.jsonl").exists() and lines(place / "history.jsonl") != [], poll=record)
        place.rename(away)
        place.write_text("in the way")
        record(epoch(1))
        until(lambda: told != [], poll=record)
        for number in range(101, 111):
            record(step(number))
            time.sleep(0.01)
        [line] = told
        assert re.fullmatch(rf"{place} cannot be written \(\w+Error: .*\); trying on", line)
        place.unlink()
        away.rename(place)
        until(lambda: len(told) == 2, poll=record)
        assert told[1] == f"{place} is written again"
        assert lines(place / "history.jsonl") == [without_name(epoch(0)), without_name(epoch(1))]
        record(epoch(2))
    assert len(lines(place / "history.jsonl")) == 3
    assert len(told) == 2


def test_full_temporary_directory_costs_no_training(
    tmp_path: Path, small_disk: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "run"
    place.mkdir()
    disk = small_disk("64k")
    monkeypatch.setattr(tempfile, "tempdir", str(disk))
    with closing(RunRecord(str(place), started=time.time(), tell=pytest.fail)) as record:
        with pytest.raises(OSError), (disk / "filler").open("wb", buffering=0) as filler:
            while True:
                filler.write(bytes(4096))
        for event in attempt(0, 400, epochs=2, steps=200):
            record(event)
    board = EventAccumulator(str(place / "tensorboard"), size_guidance={"scalars": 0})
    board.Reload()
    assert len(board.Scalars("loss")) == 400
    assert len(lines(place / "history.jsonl")) == 2


def test_directory_that_is_away_is_not_made_in_its_place(tmp_path: Path) -> None:
    told: list[str] = []
    record = RunRecord(str(tmp_path / "run"), started=time.time(), tell=told.append)
    record(epoch(0))
    record.close()
    assert len(told) == 2
    assert list(tmp_path.iterdir()) == []


def test_file_system_that_stays_away_does_not_end_the_run(tmp_path: Path) -> None:
    place = tmp_path / "run"
    told: list[str] = []
    record = RunRecord(str(place), started=time.time(), tell=told.append)
    place.write_text("in the way")
    for number in range(3):
        record(epoch(number))
    record.close()
    assert len(told) == 2
    assert told[1] == f"{place} misses the end of the run: it could not be written"
    assert len(record.history) == 3


def until(condition: Callable[[], bool], *, poll: RunRecord) -> None:
    """Wait for the background, with an event now and then as a run has them."""
    deadline = time.monotonic() + TIMEOUT_SECONDS
    while not condition():
        assert time.monotonic() < deadline, "what the test waits for did not come"
        time.sleep(0.02)
        poll({"event": "validation", "epoch": 0, "rows": 1, "of": 2})


def settle(record: RunRecord) -> None:
    """Give what runs in the background a moment to end."""
    for _ in range(10):
        time.sleep(0.02)
        record({"event": "validation", "epoch": 0, "rows": 1, "of": 2})
