"""What the forms of a network are worth on a validation split, and whether one of them is too bad to publish.

Legend: B rows of a batch, h, w, C the model's input, N rows, K classes.
"""

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from insitu.cluster.machine import usable_cores
from insitu.cluster.progress import Progress, shown
from insitu.errors import UserError
from insitu.metrics import Metrics, evaluate, headline, recall
from insitu.recipe import Recipe
from insitu.scoring import ir
from insitu.scoring.quantizer import Batches
from insitu.scoring.splits import Split
from insitu.scoring.stored import Stored, stored

BATCH = 16
ORIGINAL = "fp32"
PRUNED = "pruned"
CLUSTERED = "clustered"

_WORSE = {
    PRUNED: ("--sparsity", "lower it, or raise --max-drop"),
    CLUSTERED: ("--clusters", "raise it, or raise --max-drop"),
}
_WORSE_PRECISION = ("--max-drop", "raise it, calibrate on more rows, or find the ranges otherwise")


@dataclass(frozen=True)
class Measured:
    """What a form of a network gives.

    Attributes:
        metrics: of the whole validation split.
        by_class: AUC where the metric is macro AUC, else recall; None where it is not defined.
        images_per_second: of the inference alone, of the median batch, on all cores of the driver.
        stored: its files.
    """

    metrics: Metrics
    by_class: dict[str, float | None]
    images_per_second: float
    stored: Stored


@dataclass(frozen=True)
class _Answers:
    """Labels [N] or [N, K], scores [N, K], and inputs a second of the median batch."""

    labels: np.ndarray
    scores: np.ndarray
    per_second: float


class Judge:
    """Measures forms of a network, the trained one first.

    Attributes:
        metric: `insitu.metrics.headline` of the forms; "" before one is measured.
        found: the forms that are measured, by name.
    """

    def __init__(self, recipe: Recipe, validation: Split, max_drop: float) -> None:
        assert recipe.task.classes is not None
        self._kind, self._classes = recipe.task.kind, list(recipe.task.classes)
        self._validation = validation
        self._max_drop = max_drop
        self.metric = ""
        self.found: dict[str, Measured] = {}

    def measure(
        self, form: str, network: Any, *, precision: ir.Precision, files: Sequence[Path], kernels: Sequence[np.ndarray]
    ) -> np.ndarray:
        """Add a form to those found.

        Args:
            form: its name.
            network: an `openvino.Model`, or the path of its `model.xml`.
            precision: that it computes in.
            files, kernels: see `insitu.scoring.stored`.

        Returns:
            its scores of the validation rows, [N, K].

        Raises:
            UserError: it is worse than the trained network by more than is allowed.
        """
        answers = self._answers(self._compiled(network, precision), self._validation)
        metrics = self._metrics(answers)
        self.metric = headline(self._kind, metrics)
        by_class = metrics["auc"]
        if self.metric == "accuracy" and self._kind == "multiclass":
            by_class = recall(labels=answers.labels, scores=answers.scores, class_names=self._classes)
        speed = round(answers.per_second, 1)
        print(f"quantize: {form} {self.metric} {self._value(metrics):.4f}, {speed} images/s", file=sys.stderr)
        self.found[form] = Measured(metrics, by_class, speed, stored(files, kernels))
        if self.drop(form) > self._max_drop:
            setting, mend = _WORSE.get(form, _WORSE_PRECISION)
            raise UserError(
                setting,
                f"{form} reaches {self.metric} {self.value(form):.4f} and {ORIGINAL} {self.value(ORIGINAL):.4f}, "
                f"more than {self._max_drop:g} apart; nothing is published",
                mend,
            )
        return answers.scores

    def value(self, form: str) -> float:
        """The metric of a form."""
        return self._value(self.found[form].metrics)

    def drop(self, form: str) -> float:
        """By how much the metric of a form is lower than the trained network's."""
        return self.value(ORIGINAL) - self.value(form)

    def left(self) -> float:
        """What the metric may still drop from the last form that computes in fp32."""
        last = next(form for form in (CLUSTERED, PRUNED, ORIGINAL) if form in self.found)
        return self._max_drop - self.drop(last)

    def is_worse(self, network: Any, precision: ir.Precision) -> bool:
        """Whether a network drops by more than is allowed."""
        metrics = self._metrics(self._answers(self._compiled(network, precision), self._validation))
        return self.value(ORIGINAL) - self._value(metrics) > self._max_drop

    def metric_of(self, predict: Callable[[np.ndarray], np.ndarray], batches: Batches) -> float:
        """The metric of a function from inputs [B, h, w, C] to scores [B, K], on labelled batches."""
        return self._value(self._metrics(self._answers(predict, batches)))

    def told(self, form: str) -> dict[str, float]:
        """A form for the summary."""
        measured = self.found[form]
        speed = {"images_per_second": measured.images_per_second}
        return {self.metric: round(self.value(form), 6), **speed, **vars(measured.stored)}

    def _compiled(self, network: Any, precision: ir.Precision) -> ir.Predict:
        own = network if isinstance(network, Path) else network.clone()
        return ir.compile_network(own, precision=precision, rows=BATCH, threads=usable_cores())

    def _answers(self, predict: Callable[[np.ndarray], np.ndarray], batches: Batches) -> _Answers:
        labels: list[np.ndarray] = []
        scores: list[np.ndarray] = []
        seconds: list[float] = []

        def progress() -> Progress:
            return Progress(sum(map(len, labels)), self._validation.rows)

        with shown(progress, name="quantize: measuring", what="row", stream=sys.stderr):
            for inputs, truth in batches:
                begun = time.perf_counter()
                scores.append(predict(inputs))
                seconds.append((time.perf_counter() - begun) / len(inputs))
                labels.append(truth)
        found = np.nan_to_num(np.concatenate(scores))  # NaN counts as the lowest score, so that such a form is worse
        return _Answers(np.concatenate(labels), found, 1 / median(seconds))

    def _metrics(self, answers: _Answers) -> Metrics:
        return evaluate(kind=self._kind, labels=answers.labels, scores=answers.scores, class_names=self._classes)

    def _value(self, metrics: Metrics) -> float:
        """Of rows in which no class has both labels there is no AUC; the accuracy stands in."""
        return metrics[headline(self._kind, metrics)]  # type: ignore[literal-required]
