"""What the trials of a sweep came to: rows of a table, and the best of them."""

import csv
import json
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
import yaml
from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial, Trial, TrialState

from insitu import artifact
from insitu.errors import UserError
from insitu.report.predictions import validated_rows

LOST = "lost"
"""User attribute of a trial that failed for what may pass, such as a lost worker."""
AGAIN = "again"
"""User attribute of a trial in the place of one that was lost: that one's place."""
_FIGURES = ("loss", "images_per_second", "seconds_per_epoch")


def figures(directory: str, metric: str) -> dict[str, Any]:
    """A trial's figures, from its model directory.

    Returns:
        `output`; `metric` and `loss` of the validation split; `images_per_second`, the median epoch's after the
        first; `seconds_per_epoch`, what the epoch's steps take at that rate, without the validation; `validated`,
        which names the validation rows.

    Raises:
        UserError: the metric is undefined.
    """
    with artifact.verified(directory, setting="--output") as local:
        recipe = yaml.safe_load((local / artifact.RECIPE).read_text())
        metrics = artifact.read_json(local / artifact.METRICS)
        rows = artifact.read_json(local / artifact.PROVENANCE)["data"]["rows"]["train"]
        epochs = [json.loads(line) for line in (local / artifact.HISTORY).read_text().splitlines()]
        validated = validated_rows(local / artifact.PREDICTIONS)
    if metrics[metric] is None:
        raise UserError("data.split_column", f"{metric} is undefined on the validation split", "give it more rows")
    speed = statistics.median(epoch["images_per_second"] for epoch in epochs[1:] or epochs)
    batch = recipe["training"]["global_batch"]
    return {
        "output": directory,
        "metric": metrics[metric],
        "loss": metrics["loss"],
        "images_per_second": round(speed, 1),
        "seconds_per_epoch": round(rows // batch * batch / speed, 2),
        "validated": validated,
    }


@dataclass(frozen=True)
class Results:
    """The trials of a study as a table.

    Attributes:
        study: its complete trials have `figures` as user attributes, the failed ones a `reason`.
        space: what each swept recipe key is drawn from, in order.
        metric: the metric's name.
    """

    study: optuna.Study
    space: dict[str, BaseDistribution]
    metric: str

    def rows(self) -> list[dict[str, Any]]:
        """A row a trial: `trial`, the keys, the metric by its name, the figures, `output` and `status`."""
        return [
            {
                "trial": place(trial),
                **{key: _params(trial)[key] for key in self.space},
                self.metric: trial.user_attrs.get("metric"),
                **{name: trial.user_attrs.get(name) for name in (*_FIGURES, "output")},
                "status": trial.user_attrs.get("reason", trial.state.name.lower()),
            }
            for trial in latest(self.study)
        ]

    def write_csv(self, path: Path) -> None:
        rows = self.rows()
        with path.open("w", newline="") as out:
            writer = csv.DictWriter(out, rows[0])
            writer.writeheader()
            writer.writerows(rows)

    def table(self) -> str:
        """The rows without `output`, in columns as wide as their values."""
        names = [name for name in self.rows()[0] if name != "output"]
        cells = [[name.rpartition(".")[2] for name in names]]
        cells += [[_cell(row[name]) for name in names] for row in self.rows()]
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        lines = ("  ".join(map(str.ljust, line, widths)).rstrip() for line in cells)
        return "\n".join(lines)

    def summary(self) -> dict[str, Any]:
        """`metric`, `trials`, `failed` and the row of the `best`; `not_done` where a trial has it.

        Raises:
            UserError: no trial is complete.
        """
        trials, rows = latest(self.study), self.rows()
        failed = [trial for trial in trials if trial.state == TrialState.FAIL]
        if len(failed) == len(rows):
            raise UserError("--grid", f"no trial ended well; the last: {rows[-1]['status']}", "mend the recipe")
        best = rows[place(self.study.best_trial)]
        summary = {"metric": self.metric, "trials": len(rows), "failed": len(failed), "best": best}
        not_done = [trial.user_attrs["not_done"] for trial in trials if "not_done" in trial.user_attrs]
        return summary | ({"not_done": "; ".join(not_done)} if not_done else {})

    def validated_alike(self) -> bool:
        """Whether all complete trials were validated on the same rows, so that their metrics can be compared."""
        found = {trial.user_attrs.get("validated") for trial in latest(self.study)} - {None}
        return len(found) < 2


def place(trial: FrozenTrial | Trial) -> int:
    """A trial's among those that were drawn, from 0."""
    return trial.user_attrs.get(AGAIN, trial.number)


def latest(study: optuna.Study) -> list[FrozenTrial]:
    """The trials in their places; where one was tried again, the last."""
    return list({place(trial): trial for trial in study.get_trials(deepcopy=False)}.values())


def _params(trial: FrozenTrial) -> dict[str, Any]:
    return trial.params or trial.system_attrs["fixed_params"]


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
