"""The charts of a run's progress, from their points back to what was drawn."""

import re
from pathlib import Path

import numpy as np

from insitu.report.progress import throughput_chart
from insitu.report.runs import read_run
from report.trained_runs import digit_rows, step_line, write_run

METRICS = {"loss": 0.5, "accuracy": 0.5, "auc": {}, "auc_macro": None}
EPOCH = {"loss": 0.5, "learning_rate": 0.1, "images_per_second": 50.0, "validation": METRICS}


def curves(chart: str) -> list[list[list[float]]]:
    """The places of each curve's points from left to right, in pieces between gaps."""
    drawn = re.findall(r'<path d="([^"]*)" clip-path=', chart)
    return [
        [[float(x) for x in re.findall(r"[ML ]*(\S+) \S+ ", piece)] for piece in path.split("M")[1:]] for path in drawn
    ]


def test_throughput_is_by_time_with_gaps_for_pauses_and_marks_for_new_starts(tmp_path: Path) -> None:
    """Six steps in three minutes; in its second one the gang was started again, and after five hours resumed."""
    write_run(tmp_path, digit_rows(10), [{"epoch": 0, "step": 6, **EPOCH}], steps_per_epoch=6, name="squeezenet")
    seconds = [0, 10, 20, 9000, 9010, 18005]
    chart = throughput_chart(read_run(tmp_path), [step_line(i + 1) | {"seconds": s} for i, s in enumerate(seconds)])
    assert "Images/s, all workers by hours since the run began: every ten seconds, each epoch" in chart
    pieces = next(curve for curve in curves(chart) if len(curve) == 3)
    assert [len(piece) for piece in pieces] == [3, 2, 1]
    x = np.concatenate(pieces)
    np.testing.assert_allclose((x - x[0]) / (x[-1] - x[0]), np.array(seconds) / seconds[-1], atol=1e-4)
    marks = [curve[0] for curve in curves(chart) if len(curve) == 1 and len(curve[0]) == 2 and len(set(curve[0])) == 1]
    np.testing.assert_allclose((marks[-1][0] - x[0]) / (x[-1] - x[0]), 18000 / 18005, atol=1e-4)


def test_throughput_of_a_long_night_with_a_pause_an_epoch(tmp_path: Path) -> None:
    """Sixty seconds of training and forty of validation, five hundred times: what is left of each stays visible."""
    write_run(tmp_path, digit_rows(10), [{"epoch": 0, "step": 3500, **EPOCH}], steps_per_epoch=3500, name="squeezenet")
    seconds = [100 * epoch + second for epoch in range(500) for second in range(0, 70, 10)]
    chart = throughput_chart(read_run(tmp_path), [step_line(i + 1) | {"seconds": s} for i, s in enumerate(seconds)])
    points = max(sum(map(len, curve)) for curve in curves(chart))
    assert 390 < points <= 400, "matplotlib leaves out those on a straight line"
