"""The typed recipe: the only place that knows configuration keys.

A recipe is one YAML file. Unknown keys are refused with the nearest known one, every mistake is
reported at once, and units live in the key names (`_epochs`, `_mib`, `_degrees`).
"""

from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from insitu.errors import UserError

Fraction = Annotated[float, Field(ge=0, lt=1)]
Positive = Annotated[float, Field(gt=0)]
PositiveInt = Annotated[int, Field(gt=0)]


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Task(Section):
    """What is learned from the label column."""

    kind: Literal["multilabel", "multiclass"]
    classes: tuple[str, ...] | None = None
    """Class names in label order; null takes them from the dataset's metadata, else numbers them."""


class Data(Section):
    """Which columns are read, and how an image becomes the model's input."""

    size: tuple[PositiveInt, PositiveInt]
    """Height and width of the model's input, in pixels."""
    channels: Literal[1, 3] = 3
    image_column: str | None = None
    label_column: str | None = None
    id_column: str | None = None
    """Names a row in the quarantine; null takes `id` if there is one, else file, row group and row."""
    split_column: str | None = None
    """Holds `train` or `validation`; null takes `split` if there is one, else `holdout` decides."""
    holdout: Annotated[float, Field(gt=0, lt=1)] = 0.2
    """Share of the rows that become the validation split where there is no split column."""
    reader: Literal["pyarrow", "petastorm"] = "pyarrow"
    shuffle_mib: PositiveInt = 256
    """Rows are shuffled within windows of this many MiB of encoded data a worker."""
    max_bad_fraction: Fraction = 0.01
    """The run stops when more than this share of the rows cannot be read."""


class Model(Section):
    """The topology and where its weights start."""

    name: str
    options: dict[str, float] = {}
    """Options of the topology itself, such as mcnn's `width`."""
    init: str | None = None
    """A model directory to take the trunk's weights from; the head is always new."""
    freeze_trunk_epochs: Annotated[int, Field(ge=0)] = 0
    """Epochs that train the head alone."""


class Optimizer(Section):
    """The optimiser and its learning rate at `base_batch`."""

    name: Literal["adam", "sgd", "adadelta", "lars"]
    learning_rate: Positive
    base_batch: PositiveInt | None = None
    """The global batch that `learning_rate` is for: the rate grows linearly with the global batch."""
    momentum: Annotated[float, Field(ge=0, lt=1)] | None = None
    weight_decay: Annotated[float, Field(ge=0)] | None = None
    trust_coefficient: Positive | None = None

    @model_validator(mode="after")
    def _only_its_own(self) -> Self:
        allowed = {"sgd": {"momentum"}, "lars": {"momentum", "weight_decay", "trust_coefficient"}}
        for key in ("momentum", "weight_decay", "trust_coefficient"):
            if getattr(self, key) is not None and key not in allowed.get(self.name, set()):
                raise ValueError(f"{self.name} has no {key}")
        return self


class Constant(Section):
    kind: Literal["constant"] = "constant"


class StepDecay(Section):
    """Multiplied by `factor` at each of `at_epochs`."""

    kind: Literal["step"]
    at_epochs: tuple[PositiveInt, ...]
    factor: Fraction = 0.1


class EpochDecay(Section):
    """Multiplied by `factor` every epoch from `from_epoch` on."""

    kind: Literal["epoch"]
    from_epoch: Annotated[int, Field(ge=0)]
    factor: Fraction = 0.1


class PlateauDecay(Section):
    """Multiplied by `factor` when the validation loss has not fallen for `patience_epochs`."""

    kind: Literal["plateau"]
    factor: Fraction = 0.1
    patience_epochs: PositiveInt = 1
    min_delta: Annotated[float, Field(ge=0)] = 1e-4


class Schedule(Section):
    """The learning rate over the run: a linear warmup, then a decay."""

    warmup_epochs: Annotated[float, Field(ge=0)] = 0
    decay: Constant | StepDecay | EpochDecay | PlateauDecay = Field(default=Constant(), discriminator="kind")


class Augment(Section):
    """Random changes to training images, drawn anew for every image and epoch from the seed."""

    flip: bool = False
    """Left to right, half of the images."""
    rotate_degrees: Annotated[float, Field(ge=0, le=180)] = 0
    crop: Fraction = 0
    """Up to this share of each side is cut away and the rest resized."""
    brightness: Fraction = 0
    contrast: Fraction = 0
    color: Fraction = 0
    """Each channel is scaled on its own by up to this share."""


class EarlyStopping(Section):
    """Stop when the validation loss has not fallen for `patience_epochs`; the best epoch's weights are kept."""

    patience_epochs: PositiveInt
    min_delta: Annotated[float, Field(ge=0)] = 0


class Training(Section):
    """How the weights are found."""

    engine: Literal["orca"] = "orca"
    workers: PositiveInt | None = None
    """Worker processes in all; null is one an executor."""
    epochs: PositiveInt
    global_batch: PositiveInt
    """Images in one step over all workers."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """auto takes bf16 where every worker's CPU has AMX or AVX512_BF16; outputs are fp32 in either."""
    optimizer: Optimizer
    schedule: Schedule = Schedule()
    augment: Augment = Augment()
    class_weight: Literal["none", "balanced"] = "none"
    early_stopping: EarlyStopping | None = None
    seed: int = 17


class Recipe(Section):
    task: Task
    data: Data
    model: Model
    training: Training

    def to_yaml(self) -> str:
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False)


def load(path: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read and validate a recipe file.

    Args:
        path: the YAML file.
        overrides: `section.key=value` each, the value in YAML; they replace the file's.

    Raises:
        UserError: naming every wrong key with its value, and the nearest known key.
    """
    try:
        tree = yaml.safe_load(Path(path).read_text())
    except OSError as error:
        raise UserError(
            "--recipe", f"cannot read {path} ({error.strerror})", "name a file, such as one of conf/recipes/"
        ) from None
    except yaml.YAMLError as error:
        raise UserError(
            "--recipe", f"{path} is not YAML ({' '.join(str(error).split())})", "mend the line it names"
        ) from None
    if not isinstance(tree, dict):
        raise UserError("--recipe", f"{path} holds no sections", "start from one of conf/recipes/")
    for override in overrides:
        _apply(tree, override)
    return parse(tree)


def parse(tree: dict[str, Any]) -> Recipe:
    """Validate a recipe given as nested dictionaries; raises `UserError` as `load` does."""
    try:
        return Recipe.model_validate(tree)
    except ValidationError as error:
        mistakes = [_explain(tuple(item["loc"]), item) for item in error.errors()]
        setting, problem, mend = mistakes[0]
        more = "".join(f" | {s}: {p}; {m}" for s, p, m in mistakes[1:])
        raise UserError(setting, problem, mend + more) from None


def _apply(tree: dict[str, Any], override: str) -> None:
    key, equals, value = override.partition("=")
    if not equals or not key:
        raise UserError("--set", f"expected section.key=value, got {override!r}", "write it as --set training.epochs=3")
    *sections, last = key.split(".")
    node: Any = tree
    for section in sections:
        node = node.setdefault(section, {})
        if not isinstance(node, dict):
            raise UserError("--set", f"{key}: {section} is not a section", "use a key of the recipe")
    try:
        node[last] = yaml.safe_load(value)
    except yaml.YAMLError:
        raise UserError("--set", f"{key}: {value!r} is not a YAML value", "quote it") from None


_UNION_TAGS = {"constant", "step", "epoch", "plateau"}


def _explain(loc: tuple[int | str, ...], item: Any) -> tuple[str, str, str]:
    path = [str(part) for part in loc if not (part in _UNION_TAGS and "decay" in loc)]
    setting = ".".join(path) or "recipe"
    if item["type"] == "extra_forbidden":
        known = _known_keys(path[:-1])
        near = get_close_matches(path[-1], known, n=1, cutoff=0.4)
        mend = f"did you mean {near[0]}?" if near else f"the keys here are {', '.join(known)}"
        return setting, "unknown key", mend
    if item["type"] == "missing":
        return setting, "is missing", "set it in the recipe or with --set"
    if item["type"] == "value_error":
        return setting, str(item["ctx"]["error"]), "mend the recipe or the --set"
    return setting, f"{item['msg'][0].lower() + item['msg'][1:]}, got {item['input']!r}", "mend the recipe or the --set"


def _known_keys(path: Iterable[str]) -> list[str]:
    """The keys of the section that `path` names, those of every decay where it is a decay."""
    sections: list[type[BaseModel]] = [Recipe]
    for name in path:
        annotations = [cls.model_fields[name].annotation for cls in sections if name in cls.model_fields]
        parts = [part for a in annotations for part in (get_args(a) or (a,))]
        sections = [p for p in parts if isinstance(p, type) and issubclass(p, BaseModel)]
    return sorted({key for cls in sections for key in cls.model_fields})
