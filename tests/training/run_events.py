"""The events of a run, as the training driver gives them to its listener; each is a function of its step."""

from insitu.training.engines.base import Event

EPOCHS, STEPS = 3, 50


def start(first_step: int = 0, *, epochs: int = EPOCHS, steps: int = STEPS) -> Event:
    return {
        "event": "start",
        "epochs": epochs,
        "steps_per_epoch": steps,
        "global_batch": 64,
        "first_step": first_step,
    }


def step(number: int, *, steps: int = STEPS, seconds: float | None = None) -> Event:
    return {
        "event": "step",
        "step": number,
        "epoch": (number - 1) // steps,
        "loss": 1 / number,
        "learning_rate": 0.01,
        "images_per_second": 120.0 + number,
        "seconds": 7.0 * number if seconds is None else seconds,
    }


def epoch(number: int, *, steps: int = STEPS, auc: float | None = 0.9) -> Event:
    return {
        "event": "epoch",
        "epoch": number,
        "step": (number + 1) * steps,
        "loss": 0.5 / (number + 1),
        "learning_rate": 0.01,
        "images_per_second": 123.4,
        "validation": {"loss": 0.25, "accuracy": 0.75, "auc": {"cat": auc, "dog": auc}, "auc_macro": auc},
    }


def attempt(first: int, last: int, *, epochs: int, steps: int) -> list[Event]:
    """The events of a gang that goes from after step `first` to step `last`."""
    events = [start(first, epochs=epochs, steps=steps)]
    for number in range(first + 1, last + 1):
        events.append(step(number, steps=steps))
        if number % steps == 0:
            events.append(epoch(number // steps - 1, steps=steps))
    return events
