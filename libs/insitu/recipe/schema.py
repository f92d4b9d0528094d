"""The recipe's sections and keys, with their types, bounds and defaults."""

from typing import Annotated, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator

Fraction = Annotated[float, Field(ge=0, lt=1)]
NotNegative = Annotated[float, Field(ge=0)]
Positive = Annotated[float, Field(gt=0)]
NotNegativeInt = Annotated[int, Field(ge=0)]
PositiveInt = Annotated[int, Field(gt=0)]
TensorShape = Annotated[tuple[PositiveInt, ...], Field(min_length=2, max_length=3)]


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    def to_yaml(self) -> str:
        """As a file that is read again as it is, every default written out."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False)


class Task(Section):
    """What is learned from the label column."""

    kind: Literal["multilabel", "multiclass"]
    classes: tuple[str, ...] | None = None
    """Class names in label order; null takes them from the dataset's metadata, else numbers them."""

    @field_validator("classes")
    @classmethod
    def _distinct(cls, names: tuple[str, ...] | None) -> tuple[str, ...] | None:
        if names is not None and (not names or len(set(names)) < len(names)):
            raise ValueError("expected names that differ, at least one")
        return names


class Data(Section):
    """Which columns are read, and how a row becomes the model's input: an image of `size`, or a tensor."""

    size: tuple[PositiveInt, PositiveInt] | None = None
    """Height and width that images are brought to, in pixels."""
    tensor_shape: TensorShape | None = Field(default=None, validate_default=True)
    """Of one row's float tensor: [height, width, channels], or [steps, variables] of a window, a map of one channel."""
    channels: Literal[1, 3] | None = Field(default=None, validate_default=True)
    """Of an image; null is 3."""
    image_column: str | None = None
    tensor_column: str | None = None
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
    cache_mib: NotNegativeInt = 0
    """Decoded images that a worker keeps in memory for the next epochs, in MiB; those beyond are decoded every time.

    Beside Java's heap: on YARN and Kubernetes it is part of `spark.executor.memoryOverhead`.
    """
    max_bad_fraction: Fraction = 0.01
    """The run stops when more than this share of the rows cannot be read, of the dataset or of one of `additions`."""
    additions: tuple[str, ...] = ()
    """Parquet directories of rows that were labelled later; all of them train, none validates."""

    @field_validator("additions")
    @classmethod
    def _each_once(cls, additions: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(additions)) < len(additions):
            raise ValueError("a directory is listed twice, and its rows would train twice")
        return additions

    @field_validator("tensor_shape")
    @classmethod
    def _either_image_or_tensor(cls, shape: TensorShape | None, info: ValidationInfo) -> TensorShape | None:
        size = info.data.get("size", "wrong itself")
        if shape is None and size is None:
            raise ValueError("neither data.size, for images, nor data.tensor_shape, for tensors, is set")
        if shape is not None and size is not None:
            raise ValueError("data.size is of images, data.tensor_shape of tensors: set one of the two")
        return shape

    @field_validator("channels", "image_column", "cache_mib")
    @classmethod
    def _of_images(cls, value: object, info: ValidationInfo) -> object:
        if value not in (None, 0) and info.data.get("tensor_shape"):
            raise ValueError(f"{value}, which is for images, and data.tensor_shape reads tensors: leave it out")
        return value

    @field_validator("channels")
    @classmethod
    def _usual_channels(cls, channels: int | None, info: ValidationInfo) -> int | None:
        return 3 if channels is None and info.data.get("size") else channels

    @field_validator("tensor_column")
    @classmethod
    def _of_tensors(cls, value: str | None, info: ValidationInfo) -> str | None:
        if value is not None and info.data.get("size"):
            raise ValueError(f"{value}, which is for tensors, and data.size reads images: leave it out")
        return value

    @property
    def input(self) -> Literal["image", "tensor"]:
        """What a row becomes."""
        return "tensor" if self.tensor_shape else "image"

    @property
    def map_size(self) -> tuple[int, int]:
        """Height and width of the model's input."""
        size = self.size or (self.tensor_shape or ())[:2]
        return size[0], size[1]

    @property
    def map_channels(self) -> int:
        """Channels of the model's input."""
        return self.channels or (*(self.tensor_shape or ()), 1)[2]


class Model(Section):
    """The topology and where its weights start."""

    name: str
    options: dict[str, float] = {}
    """Options of the topology itself, such as mcnn's `width`."""
    normalization: Literal["batch", "group", "none"] | None = None
    """What normalises between the layers; null is the topology's own."""
    init: str | None = None
    """A model directory, or a registry for its current version, to take the trunk's weights from; the head is new."""
    keep_head: bool = False
    """Take the head's weights from `init` too: its classes have to be those of the data, in the same order."""
    freeze_trunk_epochs: Annotated[int, Field(ge=0)] = 0
    """Epochs that train the head alone, on the trunk of `init`."""

    @field_validator("keep_head")
    @classmethod
    def _of_a_trained_head(cls, keep: bool, info: ValidationInfo) -> bool:
        if keep and info.data.get("init", "wrong itself") is None:
            raise ValueError("there is no head to keep: set model.init too, or leave this out")
        return keep

    @field_validator("freeze_trunk_epochs")
    @classmethod
    def _of_a_trained_trunk(cls, epochs: int, info: ValidationInfo) -> int:
        if epochs and info.data.get("init", "wrong itself") is None:
            raise ValueError(f"{epochs} would freeze a random trunk: set model.init too, or leave this at 0")
        return epochs


class Optimizer(Section):
    """The optimiser and its learning rate at `base_batch`."""

    name: str
    learning_rate: Positive
    base_batch: PositiveInt | None = None
    """The global batch that `learning_rate` is for: the rate grows linearly with the global batch."""


class Adam(Optimizer):
    name: Literal["adam"]


class AdaDelta(Optimizer):
    name: Literal["adadelta"]


class SGD(Optimizer):
    """Momentum SGD; the weight decay is added to the gradient."""

    name: Literal["sgd"]
    momentum: Fraction = 0.9
    weight_decay: NotNegative = 0


class LARS(Optimizer):
    """Momentum SGD with a rate for each layer, for large batches."""

    name: Literal["lars"]
    momentum: Fraction = 0.9
    weight_decay: NotNegative = 0
    trust_coefficient: Positive = 1e-3


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
    min_delta: NotNegative = 1e-4


class Schedule(Section):
    """The learning rate over the run: a linear warmup, then a decay."""

    warmup_epochs: NotNegative = 0
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
    min_delta: NotNegative = 0


class Checkpoints(Section):
    """When the run's whole state is written beside the output, for `--resume` and for a gang that is restarted."""

    every_minutes: Positive = 5
    every_steps: PositiveInt | None = None
    """Also after each multiple of this many steps."""
    keep: PositiveInt = 2
    """The newest ones that stay."""


class Bigdl(Section):
    """What only the BigDL engine knows."""

    engine_type: Literal["auto", "mklblas", "mkldnn"] = "auto"
    """The kernels; auto takes mkldnn, and mklblas where an executor has several workers, which mkldnn cannot serve.
    docs/bigdl.md has the speeds of every topology under both."""


class Training(Section):
    """How the weights are found."""

    engine: Literal["orca", "bigdl"] = "orca"
    """orca trains with TensorFlow in Python workers, bigdl with BigDL's own layers in the executors' JVMs."""
    bigdl: Bigdl = Bigdl()
    workers: PositiveInt | None = None
    """Worker processes in all; null is one an executor."""
    threads: PositiveInt | None = None
    """Compute threads of a worker; null is its executor's cores, shared out among the executor's workers."""
    epochs: PositiveInt
    global_batch: PositiveInt
    """Images in one step over all workers."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """auto takes bf16 where the workers train faster in it (AMX, AMD's AVX512_BF16); outputs are fp32 either way."""
    optimizer: Adam | SGD | AdaDelta | LARS = Field(discriminator="name")
    gradients: Literal["fp32", "bf16"] = "fp32"
    """What workers send each other. bf16 is half of the bytes: orca rounds each number and sums in bf16, bigdl leaves
    out the lower 16 bits and sums in fp32. On one worker nothing is sent, and orca's gradients stay as they are."""
    clip_norm: Positive | None = None
    """The gradient of the whole model is scaled down to this L2 norm where it is longer."""
    schedule: Schedule = Schedule()
    augment: Augment = Augment()
    class_weight: Literal["none", "balanced"] = "none"
    early_stopping: EarlyStopping | None = None
    checkpoint: Checkpoints = Checkpoints()
    max_restarts: Annotated[int, Field(ge=0)] = 3
    """How often workers that died are started again, from the newest checkpoint, before the run fails."""
    silence_seconds: Positive = 600
    """Workers that make no progress for so long count as dead; a step must be shorter."""
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 17


class Recipe(Section):
    task: Task
    data: Data
    model: Model
    training: Training

    @field_validator("training")
    @classmethod
    def _changes_images_only(cls, training: Training, info: ValidationInfo) -> Training:
        changes = [name for name, amount in training.augment if amount]
        if changes and "data" in info.data and info.data["data"].tensor_shape:
            raise ValueError(f"augment.{changes[0]} changes images, and data.tensor_shape reads tensors: leave it out")
        return training
