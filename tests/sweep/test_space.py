"""What a sweep varies, out of the command line's words."""

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from insitu.errors import UserError
from insitu.sweep.space import overrides, parse_space

SCALARS = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False))


def test_keys_keep_their_order_and_values_are_yaml() -> None:
    space = parse_space(
        [
            ("--grid", "training.optimizer={name: adam, learning_rate: 0.1},{name: lars, learning_rate: 4}"),
            ("--range", "training.optimizer.momentum=0.5:0.99"),
            ("--grid", "training.precision=fp32,null"),
            ("--range", "training.seed=1:9"),
            ("--range", "training.epochs=1:64:log"),
        ]
    )
    assert list(space.items()) == [
        (
            "training.optimizer",
            CategoricalDistribution(("{name: adam, learning_rate: 0.1}", "{name: lars, learning_rate: 4}")),
        ),
        ("training.optimizer.momentum", FloatDistribution(0.5, 0.99)),
        ("training.precision", CategoricalDistribution(("fp32", None))),
        ("training.seed", IntDistribution(1, 9)),
        ("training.epochs", IntDistribution(1, 64, log=True)),
    ]


@given(st.lists(SCALARS, min_size=1, unique=True))
def test_a_value_reaches_the_recipe_as_it_was_written(values: list[object]) -> None:
    flow = yaml.safe_dump(values, default_flow_style=True, width=10**6).strip()
    distribution = parse_space([("--grid", f"data.size={flow[1:-1]}")])["data.size"]
    assert isinstance(distribution, CategoricalDistribution)
    for choice, value in zip(distribution.choices, values, strict=True):
        (override,) = overrides({"data.size": choice})
        found = yaml.safe_load(override.removeprefix("data.size="))
        assert type(value)(found) == value if isinstance(value, float) else found == value


@pytest.mark.parametrize(
    ("option", "entry", "problem"),
    [
        ("--grid", "training.seed", r"--grid: expected section\.key=…, got 'training\.seed'; write it as --grid tr"),
        ("--grid", "=1,2", r"--grid: expected section\.key=…, got '=1,2'"),
        ("--grid", "training.seed=", r"--grid: training\.seed: '' is no list of values; write it as --grid"),
        ("--grid", "training.seed=[1", r"--grid: training\.seed: '\[1' is no list of values"),
        ("--grid", "training.seed=1,2,1", r"--grid: training\.seed: a value comes twice in 1,2,1; give each"),
        ("--range", "training.seed=3", r"--range: training\.seed: '3' is no range of numbers, low to high; write"),
        ("--range", "training.seed=3:1", r"--range: training\.seed: '3:1' is no range"),
        ("--range", "training.seed=a:b", r"--range: training\.seed: 'a:b' is no range"),
        ("--range", "training.seed=0:1:log", r"--range: training\.seed: '0:1:log' is no range"),
        ("--range", "training.seed=1:2:3", r"--range: training\.seed: '1:2:3' is no range"),
    ],
)
def test_what_cannot_be_read_is_refused(option: str, entry: str, problem: str) -> None:
    with pytest.raises(UserError, match=problem):
        parse_space([(option, entry)])


def test_a_key_that_comes_twice_is_refused() -> None:
    with pytest.raises(UserError, match=r"--range: training\.seed comes twice; give each key once"):
        parse_space([("--grid", "training.seed=1,2"), ("--range", "training.seed=1:9")])


def test_an_empty_space_is_refused() -> None:
    with pytest.raises(UserError, match=r"--grid: there is nothing to sweep; add --grid training"):
        parse_space([])
