"""INT8 by NNCF: calibration, and what to do where it costs too much.

Legend: B rows of a batch, h, w, C the model's input, K classes.
"""

import logging
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, redirect_stdout
from typing import Any, Literal, get_args

import numpy as np

from insitu.scoring.signal_stack import kept_signal_stack

Ranges = Literal["minmax", "histogram", "percentile"]
RANGES: tuple[Ranges, ...] = get_args(Ranges)
"""How the range of a tensor is found: its extremes, the bounds of a histogram with the least error, or percentiles."""

Batches = Iterable[tuple[np.ndarray, np.ndarray]]
"""Inputs [B, h, w, C] and labels [B, ...]; can be iterated again and again."""


def quantized(network: Any, calibration: Batches, *, batches: int, ranges: Ranges) -> Any:
    """An `openvino.Model` whose convolutions and matrix products are of INT8.

    Args:
        network: an `openvino.Model`, which stays as it is.
        calibration: what activations' ranges are found on.
        batches: of it.
        ranges: how.
    """
    import nncf

    with _quiet(), kept_signal_stack():
        return nncf.quantize(
            network, _dataset(calibration), subset_size=batches, advanced_parameters=_parameters(ranges)
        )


def quantized_within(
    network: Any,
    calibration: Batches,
    validation: Batches,
    metric: Callable[[Callable[[np.ndarray], np.ndarray], Batches], float],
    *,
    batches: int,
    ranges: Ranges,
    max_drop: float,
) -> Any:
    """The same, but layers are taken back to floating point, the costliest first, until the metric drops by less.

    Args:
        validation: what the metric is of.
        metric: of a function from inputs to scores, and of labelled batches; more is better.
        max_drop: of the metric, that is allowed.
    """
    import nncf

    def value(compiled: Any, batches: Batches) -> tuple[float, None]:
        return metric(lambda inputs: compiled(inputs)[0], batches), None

    with _quiet(), kept_signal_stack():
        return nncf.quantize_with_accuracy_control(
            network,
            _dataset(calibration),
            nncf.Dataset(validation),
            value,
            max_drop=max_drop,
            subset_size=batches,
            advanced_quantization_parameters=_parameters(ranges),
        )


def _dataset(calibration: Batches) -> Any:
    import nncf

    return nncf.Dataset(calibration, lambda batch: batch[0])


def _parameters(ranges: Ranges) -> Any:
    from nncf import AdvancedQuantizationParameters
    from nncf.quantization.range_estimator import RangeEstimatorParametersSet

    chosen = {
        "minmax": RangeEstimatorParametersSet.MINMAX,
        "histogram": RangeEstimatorParametersSet.HISTOGRAM,
        "percentile": RangeEstimatorParametersSet.MEAN_QUANTILE,
    }[ranges]
    return AdvancedQuantizationParameters(activations_range_estimator_params=chosen, batchwise_statistics=True)


@contextmanager
def _quiet() -> Iterator[None]:
    """NNCF tells of its progress on stdout, where a job's summary goes."""
    import nncf

    nncf.set_log_level(logging.ERROR)
    with redirect_stdout(sys.stderr):
        yield
