"""What a sweep varies: recipe keys with their values or ranges, as the command line writes them."""

import json
from collections.abc import Sequence

import yaml
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from insitu.errors import UserError

Params = dict[str, str | int | float | bool | None]
"""A trial's settings: a mapping or a list is kept as YAML text, as Optuna stores only scalars."""


def parse_space(entries: Sequence[tuple[str, str]]) -> dict[str, BaseDistribution]:
    """The keys in the order given, each with what Optuna draws from.

    Args:
        entries: pairs of `--grid` and `KEY=V1,V2,…`, each value YAML, or `--range` and `KEY=LO:HI[:log]`, both
            ends included; whole numbers where both are.

    Raises:
        UserError: an entry that cannot be read, a value or a key that comes twice, or an empty range.
    """
    space: dict[str, BaseDistribution] = {}
    for option, entry in entries:
        key, equals, text = entry.partition("=")
        if not key or not equals:
            raise UserError(option, f"expected section.key=…, got {entry!r}", f"write it as {_EXAMPLES[option]}")
        if key in space:
            raise UserError(option, f"{key} comes twice", "give each key once")
        space[key] = _choices(key, text) if option == "--grid" else _range(key, text)
    if not space:
        raise UserError("--grid", "there is nothing to sweep", f"add {_EXAMPLES['--grid']}")
    return space


def overrides(params: Params) -> list[str]:
    """A trial's settings as `--set` takes them."""
    return [f"{key}={value if isinstance(value, str) else json.dumps(value)}" for key, value in params.items()]


def _choices(key: str, text: str) -> CategoricalDistribution:
    try:
        values = yaml.safe_load(f"[{text}]")
    except yaml.YAMLError:
        values = []
    if not values:
        raise UserError("--grid", f"{key}: {text!r} is no list of values", f"write it as {_EXAMPLES['--grid']}")
    choices = [_flow(value) if isinstance(value, dict | list) else value for value in values]
    if len(set(choices)) < len(choices):
        raise UserError("--grid", f"{key}: a value comes twice in {text}", "give each value once")
    return CategoricalDistribution(choices)


def _flow(value: dict | list) -> str:
    return yaml.safe_dump(value, default_flow_style=True, sort_keys=False, width=10**6).strip()


def _range(key: str, text: str) -> BaseDistribution:
    ends, log = text.removesuffix(":log").split(":"), text.endswith(":log")
    try:
        low, high = ends
        if low.isdecimal() and high.isdecimal():
            return IntDistribution(int(low), int(high), log=log)
        return FloatDistribution(float(low), float(high), log=log)
    except ValueError:
        raise UserError(
            "--range", f"{key}: {text!r} is no range of numbers, low to high", f"write it as {_EXAMPLES['--range']}"
        ) from None


_EXAMPLES = {
    "--grid": "--grid training.global_batch=8,64,512",
    "--range": "--range training.optimizer.learning_rate=0.0001:0.1:log",
}
