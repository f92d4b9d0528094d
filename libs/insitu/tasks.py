"""Tasks: what a label column means for the head, the loss and the checks. Tasks, not domains.

Legend: B batch, K classes.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from insitu.errors import UserError

if TYPE_CHECKING:
    import tensorflow as tf

Loss = Callable[["tf.Tensor", "tf.Tensor"], "tf.Tensor"]


@dataclass(frozen=True)
class LabelCounts:
    """Labels of the rows of one split: rows in all, rows by class, list lengths seen (multilabel)."""

    rows: int
    by_class: Mapping[int, int]
    widths: tuple[int, ...] = ()

    def vector(self, classes: int) -> np.ndarray:
        """int64 [K]."""
        return np.array([self.by_class.get(k, 0) for k in range(classes)], np.int64)


@dataclass(frozen=True)
class Multilabel:
    """Several classes an image may have: sigmoid, binary cross-entropy, labels 0/1 [B, K]."""

    kind: Literal["multilabel"] = "multilabel"
    label_form = "multi_hot"
    label_dtype = "float32"
    activation: Literal["sigmoid"] = "sigmoid"

    def label_shape(self, classes: int) -> tuple[int, ...]:
        return (classes,)

    def count_classes(self, counts: LabelCounts) -> int:
        """K as the labels show it, the commonest list length."""
        return counts.widths[0]

    def check_range(self, counts: LabelCounts, classes: int) -> None:
        """Raise `UserError` where a label list has not K entries."""
        wrong = [width for width in counts.widths if width != classes]
        if wrong:
            raise UserError(
                "task.classes", f"a label has {wrong[0]} entries, expected {classes}", "mend the labels or the classes"
            )

    def check_variety(self, counts: LabelCounts, classes: int) -> None:
        """Raise `UserError` where no class tells the training rows apart."""
        positives = counts.vector(classes)
        if not ((positives > 0) & (positives < counts.rows)).any():
            raise UserError(
                "data.label_column", "every training row has the same labels", "train on rows of several classes"
            )

    def class_weights(self, counts: LabelCounts, classes: int) -> np.ndarray:
        """float32 [2, K], the weights of label 0 and label 1: each label weighs as the other is frequent.

        As CheXNet does (Rajpurkar et al. 2017, arXiv:1711.05225, section 2.2).
        """
        positive = counts.vector(classes) / counts.rows
        return np.stack([positive, 1 - positive]).astype(np.float32)

    def loss(self, class_weights: np.ndarray | None) -> Loss:
        """Binary cross-entropy of labels and scores, both [B, K], weighted by label where weights are given."""
        import tensorflow as tf

        if class_weights is None:
            return tf.keras.losses.binary_crossentropy
        negative, positive = class_weights

        def weighted(labels: "tf.Tensor", scores: "tf.Tensor") -> "tf.Tensor":
            entropy = tf.keras.backend.binary_crossentropy(labels, scores)
            return tf.reduce_mean(entropy * tf.where(labels > 0.5, positive, negative), axis=-1)

        return weighted


@dataclass(frozen=True)
class Multiclass:
    """One class an image has: softmax, categorical cross-entropy, labels 0..K-1 [B]."""

    kind: Literal["multiclass"] = "multiclass"
    label_form = "integer"
    label_dtype = "int64"
    activation: Literal["softmax"] = "softmax"

    def label_shape(self, classes: int) -> tuple[int, ...]:
        return ()

    def count_classes(self, counts: LabelCounts) -> int:
        """K as the labels show it, one more than the largest."""
        return max(counts.by_class) + 1

    def check_range(self, counts: LabelCounts, classes: int) -> None:
        """Raise `UserError` where a label is outside 0..K-1."""
        outside = [label for label in sorted(counts.by_class) if not 0 <= label < classes]
        if outside:
            raise UserError(
                "task.classes",
                f"label {outside[0]} is outside the classes 0..{classes - 1}",
                "name every class, or mend the labels",
            )

    def check_variety(self, counts: LabelCounts, classes: int) -> None:
        """Raise `UserError` where the training rows are of one class only."""
        if len(counts.by_class) == 1:
            only = next(iter(counts.by_class))
            raise UserError(
                "data.label_column", f"all training rows are of class {only}", "train on rows of several classes"
            )

    def class_weights(self, counts: LabelCounts, classes: int) -> np.ndarray:
        """float32 [K], inversely proportional to frequency, 1 on average over the rows (scikit-learn's "balanced")."""
        present = counts.vector(classes)
        return (counts.rows / (np.count_nonzero(present) * np.maximum(present, 1))).astype(np.float32)

    def loss(self, class_weights: np.ndarray | None) -> Loss:
        """Categorical cross-entropy of labels [B] and scores [B, K], weighted by class where weights are given."""
        import tensorflow as tf

        if class_weights is None:
            return tf.keras.losses.sparse_categorical_crossentropy

        def weighted(labels: "tf.Tensor", scores: "tf.Tensor") -> "tf.Tensor":
            entropy = tf.keras.losses.sparse_categorical_crossentropy(labels, scores)
            return entropy * tf.gather(class_weights, tf.cast(tf.reshape(labels, [-1]), tf.int64))

        return weighted


Task = Multilabel | Multiclass
TASKS: dict[str, Task] = {"multilabel": Multilabel(), "multiclass": Multiclass()}
