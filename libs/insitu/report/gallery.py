"""Which predictions are shown, and as what pictures."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from insitu.report.gradcam import heat_maps
from insitu.report.pictures import overlay, picture
from insitu.report.predictions import Predictions

if TYPE_CHECKING:
    import keras

_EACH = 8


@dataclass(frozen=True)
class Choice:
    """A row to show, and the class whose score is explained."""

    row: int
    explained: int


@dataclass(frozen=True)
class Card:
    """A prediction as the page shows it; `image` and `heat` are data: URIs."""

    image: str
    heat: str
    explained: str
    score: float
    labels: str
    stored: str


@dataclass(frozen=True)
class Group:
    """Predictions of one kind, the most telling first."""

    title: str
    none: str
    cards: list[Card]


def gallery(
    predictions: Predictions,
    class_names: Sequence[str],
    *,
    model: "keras.Model",
    read_images: Callable[[Sequence[int]], list[np.ndarray]],
) -> list[Group]:
    """Right and wrong predictions with their Grad-CAM overlays, at most 8 of a kind.

    Args:
        predictions: of the validation split.
        class_names: K names.
        model: what predicted.
        read_images: uint8 [H, W, C] of each row asked for.
    """
    kinds = choose(predictions)
    choices = [choice for _, _, chosen in kinds for choice in chosen]
    cards = iter(_cards(choices, predictions, class_names, model, read_images) if choices else [])
    return [Group(title, none, [next(cards) for _ in chosen]) for title, none, chosen in kinds]


def choose(predictions: Predictions) -> list[tuple[str, str, list[Choice]]]:
    """Title, what to say if there is none, and the choices of each kind; no row twice in a kind."""
    scores, answers = predictions.scores, predictions.answers
    if not predictions.multilabel:
        answered = np.stack([np.arange(len(answers)), answers], axis=1)
        right = answers == predictions.labels
        return [
            ("Right, the surest of each class", "No prediction is right.", _varied(answered[right], scores)),
            ("Wrong, the surest first", "No prediction is wrong.", _surest(answered[~right], scores)),
        ]
    truth = predictions.labels > 0
    found, missed, false = (np.argwhere(kind) for kind in (truth & answers, truth & ~answers, ~truth & answers))
    return [
        ("Found, the surest of each class", "No label was found.", _varied(found, scores)),
        ("Missed, the lowest scores first", "No label was missed.", _surest(missed, -scores)),
        ("False alarms, the surest first", "There is no false alarm.", _surest(false, scores)),
    ]


def _cards(
    choices: Sequence[Choice],
    predictions: Predictions,
    class_names: Sequence[str],
    model: "keras.Model",
    read_images: Callable[[Sequence[int]], list[np.ndarray]],
) -> list[Card]:
    images = read_images([choice.row for choice in choices])
    heats = heat_maps(model, np.stack(images), np.array([choice.explained for choice in choices]))
    return [
        Card(
            image=picture(image),
            heat=overlay(image, heat),
            explained=class_names[choice.explained],
            score=float(predictions.scores[choice.row, choice.explained]),
            labels=_labels(predictions, choice.row, class_names),
            stored=predictions.rows[choice.row],
        )
        for choice, image, heat in zip(choices, images, heats, strict=True)
    ]


def _surest(places: np.ndarray, scores: np.ndarray) -> list[Choice]:
    return _first(_sorted(places, scores), lambda choice: choice.row)


def _varied(places: np.ndarray, scores: np.ndarray) -> list[Choice]:
    """The surest of each class, then the surest of the rest."""
    ordered = _sorted(places, scores)
    leaders = _first(ordered, lambda choice: choice.explained, limit=len(ordered))
    return _first([*leaders, *ordered], lambda choice: choice.row)


def _sorted(places: np.ndarray, scores: np.ndarray) -> list[Choice]:
    """The (row, class) places, int [M, 2], the highest score first."""
    order = np.argsort(-scores[places[:, 0], places[:, 1]], kind="stable")
    return [Choice(int(row), int(k)) for row, k in places[order]]


def _first(choices: Iterable[Choice], key: Callable[[Choice], int], *, limit: int = _EACH) -> list[Choice]:
    """The first choices whose keys differ, at most `limit`."""
    chosen: dict[int, Choice] = {}
    for choice in choices:
        if len(chosen) < limit:
            chosen.setdefault(key(choice), choice)
    return list(chosen.values())


def _labels(predictions: Predictions, row: int, class_names: Sequence[str]) -> str:
    """The classes that a row has, as words."""
    if not predictions.multilabel:
        return class_names[predictions.labels[row]]
    return ", ".join(class_names[k] for k in np.flatnonzero(predictions.labels[row])) or "none"
