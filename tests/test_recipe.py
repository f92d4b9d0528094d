"""The recipe: what is accepted, and what each mistake is told."""

import copy
from functools import reduce
from operator import getitem
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, seed
from hypothesis import strategies as st

from insitu.errors import UserError
from insitu.recipe import PlateauDecay, load, parse

SEED = 1711
TREE: dict[str, Any] = {
    "task": {"kind": "multiclass"},
    "data": {"size": [32, 32]},
    "model": {"name": "squeezenet"},
    "training": {"epochs": 3, "global_batch": 64, "optimizer": {"name": "adam", "learning_rate": 0.001}},
}


def tree_with(key: str, value: Any) -> dict[str, Any]:
    """`TREE` with the dotted `key` set."""
    tree = copy.deepcopy(TREE)
    *sections, last = key.split(".")
    node: dict[str, Any] = tree
    for section in sections:
        node = node.setdefault(section, {})
    node[last] = value
    return tree


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "recipe.yaml"
    file.write_text(yaml.safe_dump(TREE))
    return file


@pytest.mark.parametrize(
    ("key", "nearest"),
    [
        ("trainin", "training"),
        ("task.class", "classes"),
        ("data.img_column", "image_column"),
        ("model.freeze_epochs", "freeze_trunk_epochs"),
        ("training.epoch", "epochs"),
        ("training.optimizer.learningrate", "learning_rate"),
        ("training.schedule.warmup", "warmup_epochs"),
        ("training.augment.rotate", "rotate_degrees"),
        ("training.early_stopping.patience", "patience_epochs"),
    ],
)
def test_unknown_key_is_refused_with_the_nearest(key: str, nearest: str) -> None:
    with pytest.raises(UserError) as refused:
        parse(tree_with(key, 1))
    assert f"{key}: unknown key; did you mean {nearest}?" in str(refused.value)


@pytest.mark.parametrize(
    ("section", "given", "key", "mend"),
    [
        ("schedule.decay", {"kind": "step"}, "at_epoch", "did you mean at_epochs?"),
        ("schedule.decay", {"kind": "plateau"}, "patience", "did you mean patience_epochs?"),
        ("schedule.decay", {"kind": "step"}, "step", "did you mean at_epochs?"),
        ("optimizer", {"name": "sgd"}, "momentun", "did you mean momentum?"),
        ("optimizer", {"name": "adam"}, "momentum", "the keys here are base_batch, learning_rate, name"),
        ("optimizer", {"name": "adam"}, "adam", "did you mean name?"),
    ],
)
def test_unknown_key_of_a_variant_is_told_those_of_that_variant(
    section: str, given: dict[str, Any], key: str, mend: str
) -> None:
    with pytest.raises(UserError) as refused:
        parse(tree_with(f"training.{section}", {**given, key: 3}))
    assert f"training.{section}.{key}: unknown key; {mend}" in str(refused.value)


def test_unknown_key_near_to_none_is_told_the_keys_there_are() -> None:
    with pytest.raises(UserError, match=r"task\.zzz: unknown key; the keys here are classes, kind"):
        parse(tree_with("task.zzz", 1))


@pytest.mark.parametrize(
    ("key", "value", "problem"),
    [
        ("training.epochs", "three", "input should be a valid integer.*got 'three'"),
        ("training.epochs", 0, "greater than 0, got 0"),
        ("training.epochs", 2.5, "valid integer.*got 2.5"),
        ("training.seed", -1, "greater than or equal to 0, got -1"),
        ("training.optimizer.learning_rate", float("inf"), "finite number, got inf"),
        ("training.optimizer.learning_rate", float("nan"), "got nan"),
        ("training.optimizer.name", "adamw", "'adam', 'sgd', 'adadelta', 'lars', got 'adamw'; "),
        ("training.engine", "horovod", "'orca'"),
        ("training.augment.flip", "perhaps", "valid boolean.*got 'perhaps'"),
        ("training.augment.crop", 1, "less than 1, got 1"),
        ("training.schedule.decay", {"kind": "cosine"}, "'constant', 'step', 'epoch', 'plateau', got 'cosine'; "),
        ("data.size", [32], "field required|is missing"),
        ("data.channels", 4, "1 or 3, got 4"),
        ("data.holdout", 1.0, "less than 1, got 1.0"),
        ("task", "multiclass", "got 'multiclass'"),
        ("task.classes", ["cat", "dog", "cat"], "names that differ"),
        ("task.classes", [], "names that differ, at least one"),
        ("model.name", None, "valid string, got None"),
        ("data.additions", "labelled", "valid tuple, got 'labelled'"),
        ("data.additions", ["a", "b", "a"], "a directory is listed twice, and its rows would train twice; "),
        ("model.keep_head", True, "there is no head to keep: set model.init too, or leave this out; "),
        ("model.freeze_trunk_epochs", 2, "2 would freeze a random trunk: set model.init too, or leave this at 0; "),
    ],
)
def test_wrong_value_is_refused_with_its_key(key: str, value: Any, problem: str) -> None:
    with pytest.raises(UserError, match=problem) as refused:
        parse(tree_with(key, value))
    assert refused.value.setting.startswith(key)
    assert "\n" not in str(refused.value)


TENSOR = {"size": None, "tensor_shape": [64, 32]}


@pytest.mark.parametrize(
    ("data", "training", "told"),
    [
        (
            {"size": None},
            {},
            "data.tensor_shape: neither data.size, for images, nor data.tensor_shape, for",
        ),
        (
            {"tensor_shape": [64, 32]},
            {},
            "data.tensor_shape: data.size is of images, data.tensor_shape of",
        ),
        (TENSOR | {"tensor_shape": [64]}, {}, "data.tensor_shape: tuple should have at least 2 items"),
        (TENSOR | {"tensor_shape": [4, 4, 4, 4]}, {}, "data.tensor_shape: tuple should have at most 3 items"),
        (TENSOR | {"tensor_shape": [64, 0]}, {}, "data.tensor_shape.1: input should be greater than 0, got 0"),
        (TENSOR | {"channels": 3}, {}, "data.channels: 3, which is for images, and data.tensor_shape reads tensors"),
        (TENSOR | {"cache_mib": 64}, {}, "data.cache_mib: 64, which is for images, and data.tensor_shape"),
        (TENSOR | {"image_column": "scan"}, {}, "data.image_column: scan, which is for images, and data.tensor_shape"),
        ({"tensor_column": "x"}, {}, "data.tensor_column: x, which is for tensors, and data.size reads images"),
        (
            TENSOR,
            {"augment": {"flip": True}},
            "training: augment.flip changes images, and data.tensor_shape",
        ),
        (
            TENSOR,
            {"augment": {"crop": 0.1}},
            "training: augment.crop changes images, and data.tensor_shape",
        ),
    ],
)
def test_keys_of_images_and_of_tensors_exclude_each_other(
    data: dict[str, Any], training: dict[str, Any], told: str
) -> None:
    tree = copy.deepcopy(TREE)
    tree["data"] |= data
    tree["training"] |= training
    with pytest.raises(UserError) as refused:
        parse(tree)
    assert str(refused.value).startswith(told)


@pytest.mark.parametrize(
    ("data", "size", "channels"),
    [
        ({"size": [32, 48]}, (32, 48), 3),
        ({"size": [32, 48], "channels": 1}, (32, 48), 1),
        ({"tensor_shape": [64, 32]}, (64, 32), 1),
        ({"tensor_shape": [64, 32, 5], "tensor_column": "pileup"}, (64, 32), 5),
    ],
)
def test_an_image_or_a_tensor_is_a_map(data: dict[str, Any], size: tuple[int, int], channels: int) -> None:
    recipe = parse(tree_with("data", data))
    assert (recipe.data.map_size, recipe.data.map_channels) == (size, channels)
    assert recipe.data.input == ("image" if "size" in data else "tensor")
    assert parse(yaml.safe_load(recipe.to_yaml())) == recipe


@pytest.mark.parametrize("key", ["training.epochs", "training.optimizer.name", "training.optimizer.learning_rate"])
def test_missing_key_is_named(key: str) -> None:
    tree = tree_with(key, None)
    *sections, last = key.split(".")
    del reduce(getitem, sections, tree)[last]
    with pytest.raises(UserError) as refused:
        parse(tree)
    assert str(refused.value) == f"{key}: is missing; set it in the recipe or with --set"


def test_every_mistake_is_told_at_once() -> None:
    tree = tree_with("training.epochs", "three") | {"tsk": 1}
    tree["data"] = {"size": [32, 0]}
    with pytest.raises(UserError) as refused:
        parse(tree)
    told = str(refused.value)
    assert "\n" not in told
    for mistake in ("training.epochs: ", "data.size.1: ", "tsk: unknown key; did you mean task?"):
        assert mistake in told


@pytest.mark.parametrize(
    ("name", "own"),
    [
        ("adam", {}),
        ("adadelta", {}),
        ("sgd", {"momentum": 0.9, "weight_decay": 0}),
        ("lars", {"momentum": 0.9, "weight_decay": 0, "trust_coefficient": 1e-3}),
    ],
)
def test_resolved_optimizer_holds_its_own_settings_only(name: str, own: dict[str, float]) -> None:
    resolved = yaml.safe_load(parse(tree_with("training.optimizer", {"name": name, "learning_rate": 0.1})).to_yaml())
    assert resolved["training"]["optimizer"] == {"name": name, "learning_rate": 0.1, "base_batch": None, **own}


def test_set_overrides_any_key_with_a_yaml_value(path: Path) -> None:
    overrides = [
        *("training.epochs=7", "data.size=[64, 96]", "training.precision=bf16"),
        *("training.schedule.decay={kind: plateau, factor: 0.5}", "training.early_stopping.patience_epochs=2"),
        *("model.options.width=0.25", "data.id_column=null", "training.optimizer.learning_rate=1e-3"),
    ]
    recipe = load(path, overrides)
    assert (recipe.training.epochs, recipe.data.size, recipe.training.precision) == (7, (64, 96), "bf16")
    assert recipe.training.schedule.decay == PlateauDecay(kind="plateau", factor=0.5)
    assert recipe.training.early_stopping is not None
    assert recipe.training.early_stopping.patience_epochs == 2
    assert recipe.model.options == {"width": 0.25}
    assert recipe.data.id_column is None
    assert recipe.training.optimizer.learning_rate == 0.001


def test_later_set_wins(path: Path) -> None:
    assert load(path, ["training.epochs=7", "training.epochs=8"]).training.epochs == 8


def test_set_opens_a_section_that_a_resolved_recipe_holds_as_null(path: Path) -> None:
    path.write_text(load(path).to_yaml())
    stopping = load(path, ["training.early_stopping.patience_epochs=2"]).training.early_stopping
    assert stopping is not None
    assert stopping.patience_epochs == 2


def test_set_removes_a_section_with_null(path: Path) -> None:
    overrides = ["training.early_stopping.patience_epochs=2", "training.early_stopping=null"]
    assert load(path, overrides).training.early_stopping is None


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("training.epochs", "--set: expected section.key=value, got 'training.epochs'; write it as "),
        ("=3", "--set: expected section.key=value, got '=3'; "),
        ("training.epochs={", "--set: training.epochs: '{' is not a YAML value; quote it"),
        ("training.epochs.warm=1", "--set: training.epochs.warm: epochs is not a section; "),
        ("training.epoch=3", "training.epoch: unknown key; did you mean epochs?"),
        ("trainin.epochs=3", "trainin: unknown key; did you mean training?"),
    ],
)
def test_wrong_set_is_refused(path: Path, override: str, told: str) -> None:
    with pytest.raises(UserError) as refused:
        load(path, [override])
    assert str(refused.value).startswith(told)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"task: {kind: multiclass", "is not YAML .* line 1"),
        (b"task:\n\tkind: multiclass", "is not YAML .* line 2"),
        (b"task: !!python/object/apply:os.getcwd []", "is not YAML .*could not determine a constructor"),
        (b"\xff\xfe\x00", "is not YAML .*decode"),
        (b"", "holds no sections"),
        (b"- task", "holds no sections"),
    ],
)
def test_file_that_is_no_recipe_is_refused(path: Path, content: bytes, problem: str) -> None:
    path.write_bytes(content)
    with pytest.raises(UserError, match=problem) as refused:
        load(path)
    assert refused.value.setting == "--recipe"
    assert "\n" not in str(refused.value)


def test_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    for wrong in (tmp_path / "absent.yaml", tmp_path):
        with pytest.raises(UserError, match=f"--recipe: cannot read {wrong} "):
            load(wrong)


positive = st.floats(1e-9, 1e9)
decays = st.one_of(
    st.just({"kind": "constant"}),
    st.fixed_dictionaries({"kind": st.just("step"), "at_epochs": st.lists(st.integers(1, 99))}),
    st.fixed_dictionaries({"kind": st.just("epoch"), "from_epoch": st.integers(0, 99)}),
    st.fixed_dictionaries({"kind": st.just("plateau"), "patience_epochs": st.integers(1, 9)}),
)


@seed(SEED)
@given(
    rate=positive,
    decay=decays,
    classes=st.none() | st.lists(st.text(min_size=1), min_size=1, unique=True),
    options=st.dictionaries(st.text(), positive),
    stopping=st.none() | st.fixed_dictionaries({"patience_epochs": st.integers(1, 9), "min_delta": positive}),
)
def test_recipe_survives_its_own_yaml(rate: float, decay: Any, classes: Any, options: Any, stopping: Any) -> None:
    tree = tree_with("training.optimizer.learning_rate", rate)
    tree["task"]["classes"], tree["model"]["options"] = classes, options
    tree["training"] |= {"schedule": {"decay": decay}, "early_stopping": stopping}
    recipe = parse(tree)
    assert parse(yaml.safe_load(recipe.to_yaml())) == recipe
