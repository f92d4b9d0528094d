"""What a model directory says of its run, as the report and `insitu compare` read it."""

import calendar
import json
import statistics
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from insitu import artifact
from insitu.metrics import headline


@dataclass(frozen=True)
class Run:
    """The text files of a model directory, parsed.

    Attributes:
        recipe: `recipe.yaml`.
        signature: `signature.json`.
        metrics: `metrics.json`, the validation metrics of the weights that were kept.
        provenance: `provenance.json`.
        history: `history.jsonl`, a dict an epoch.
    """

    recipe: dict[str, Any]
    signature: artifact.Signature
    metrics: dict[str, Any]
    provenance: dict[str, Any]
    history: list[dict[str, Any]]

    @property
    def class_names(self) -> tuple[str, ...]:
        return self.signature.class_names

    @property
    def headline(self) -> str:
        """The metric that the run is judged by."""
        return headline(self.signature.task, self.metrics)

    @property
    def images_per_second(self) -> float:
        """The median epoch's after the first, which is slow; over all workers."""
        return statistics.median(line["images_per_second"] for line in self.history[1:] or self.history)

    @property
    def started_again(self) -> list[float]:
        """When gangs were started again, after a loss or by `--resume`: seconds since the run began."""
        first, *resumed = (_seconds(driver["started"]) for driver in self.provenance["drivers"])
        restarts = [restart["seconds"] for driver in self.provenance["drivers"] for restart in driver["restarts"]]
        return sorted([*restarts, *(seconds - first for seconds in resumed)])

    @property
    def kept_epoch(self) -> int:
        """The epoch, from 0, whose weights the directory holds: early stopping restores the best ones."""
        kept = min(reversed(self.history), key=lambda line: abs(line["validation"]["loss"] - self.metrics["loss"]))
        return kept["epoch"]


def read_run(directory: Path) -> Run:
    """Read the text files of a local model directory."""
    return Run(
        recipe=yaml.safe_load((directory / artifact.RECIPE).read_text()),
        signature=artifact.Signature.from_json(artifact.read_json(directory / artifact.SIGNATURE)),
        metrics=artifact.read_json(directory / artifact.METRICS),
        provenance=artifact.read_json(directory / artifact.PROVENANCE),
        history=read_lines(directory / artifact.HISTORY),
    )


def _seconds(time_utc: str) -> int:
    """Of a time such as 2024-02-29T01:02:03Z, since 1970."""
    return calendar.timegm(time.strptime(time_utc, "%Y-%m-%dT%H:%M:%SZ"))


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The objects of a JSON Lines file."""
    return [json.loads(line) for line in path.read_text().splitlines()]


def flattened(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """The leaves of nested sections by their dotted keys."""
    leaves: dict[str, Any] = {}
    for key, value in tree.items():
        name = f"{prefix}{key}"
        leaves |= flattened(value, f"{name}.") if isinstance(value, dict) and value else {name: value}
    return leaves


def by_section(provenance: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Each section's leaves by their dotted keys; what is in none under `origin`."""
    sections = {name: flattened(value) for name, value in provenance.items() if isinstance(value, dict)}
    return {**sections, "origin": {name: value for name, value in provenance.items() if not isinstance(value, dict)}}
