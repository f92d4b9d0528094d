"""Kernels of a Keras model, and the same in OpenVINO's form."""

from pathlib import Path

from insitu.scoring import ir
from insitu.scoring.compress import cluster, prune
from insitu.scoring.kernels import kernels, layer_of
from scored_models import random_model


def test_every_layer_is_found_again(tmp_path: Path) -> None:
    """Batch normalisation is multiplied into its kernels, numbers are stored in 16 bits, and many are the same."""
    model = random_model("resnet50")
    prune(model, sparsity=0.3)
    cluster(model, clusters=16)
    ir.save(ir.convert(model), tmp_path / "ir", precision="bf16")
    stored = ir.kernels(tmp_path / "ir" / ir.XML)
    assert sorted(layer_of(kernel, model) for kernel in stored) == sorted(kernels(model))
