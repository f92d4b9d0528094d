"""What BigDL cannot do is said by name, before any work."""

from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pyspark.sql import SparkSession

import insitu
from insitu import models
from insitu.bigdl.convert import convert
from insitu.bigdl.memory import Memory, check_memory, estimate
from insitu.errors import UserError
from insitu.recipe import parse
from insitu.training.run import check
from training.digits_rows import digit_rows, recipe_tree, write_rows

GIB = 2**30


@pytest.mark.parametrize(
    ("section", "changes", "message"),
    [
        ("training", {"precision": "bf16"}, "training.precision: BigDL computes in fp32"),
        ("model", {"name": "densenet121", "normalization": "group"}, "model.normalization: BigDL has no group"),
        ("model", {"init": "parent", "freeze_trunk_epochs": 1}, "model.freeze_trunk_epochs: the BigDL engine"),
        ("data", {"reader": "petastorm"}, "data.reader: BigDL reads Parquet in the JVM, not with petastorm"),
        ("data", {"cache_mib": 1}, "data.cache_mib: BigDL keeps no decoded images"),
    ],
)
def test_recipe_is_refused_by_key(section: str, changes: dict[str, Any], message: str) -> None:
    tree = recipe_tree(engine="bigdl")
    tree[section] |= changes
    with pytest.raises(UserError) as refused:
        check(parse(tree))
    assert str(refused.value).startswith(message)
    tree["training"]["engine"] = "orca"
    check(parse(tree))


def test_engine_type_of_another_engine_is_refused() -> None:
    with pytest.raises(UserError, match=r"training\.bigdl: orca has no engine types; leave it out"):
        check(parse(recipe_tree(bigdl={"engine_type": "mkldnn"})))


@pytest.mark.parametrize(
    ("data", "model", "training", "line"),
    [
        (
            {"size": [2048, 2048]},
            "squeezenet",
            {"bigdl": {"engine_type": "mklblas"}, "global_batch": 64},
            r"spark\.driver\.memory: \d+g, and 64 images an executor under mklblas need about \d+g; give --conf ",
        ),
        (
            {},
            "squeezenet",
            {"bigdl": {"engine_type": "mkldnn"}, "workers": 2},
            r"training\.bigdl\.engine_type: mkldnn trains one worker an executor, and training\.workers asks for 2; ",
        ),
        (
            {},
            "resnet50",
            {"bigdl": {"engine_type": "mklblas"}, "global_batch": 3},
            r"training\.global_batch: 3 images for a worker's 2 threads, and under mklblas each normalizes its part; ",
        ),
    ],
    ids=["memory", "workers of mkldnn", "images to normalize"],
)
def test_what_the_executors_cannot_do_is_refused_before_a_row_is_read(
    spark: SparkSession,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    data: dict[str, Any],
    model: str,
    training: dict[str, Any],
    line: str,
) -> None:
    rows = write_rows(tmp_path / "data", digit_rows())
    tree = recipe_tree(engine="bigdl", **training)
    tree["data"] |= data
    tree["model"] |= {"name": model}
    with pytest.raises(UserError, match=line):
        insitu.train(spark, parse(tree), data=rows, output=str(tmp_path / "model"))
    assert [path.name for path in tmp_path.iterdir()] == ["data"]
    assert "checking" not in capsys.readouterr().err


def test_memory_of_densenet_is_seen_to_need_mkldnn() -> None:
    """In a first trial 16 images of 224 x 224 ended a heap of 10 GB under mklblas."""
    model = models.build("densenet121", size=(224, 224), channels=3, outputs=14, activation="sigmoid")
    converted = convert(model)
    blas, dnn = (
        estimate(
            converted,
            kind,
            local_batch=16,
            threads=2,
            workers=1,
            input_bytes=4 * 3 * 224**2,
            window_rows=0,
            row_bytes=1,
        )
        for kind in ("mklblas", "mkldnn")
    )
    assert blas.heap > 10 * GIB > 4 * GIB > dnn.heap
    assert dnn.native > GIB + blas.native


@pytest.mark.parametrize(
    ("master", "settings", "needed", "message"),
    [
        (
            "spark://host:7077",
            {},
            Memory(2 * GIB, 0),
            r"spark\.executor\.memory: 1g, and 9 images an executor under mkldnn",
        ),
        ("spark://host:7077", {"spark.executor.memory": "2g"}, Memory(2 * GIB, 9 * GIB), None),
        (
            "yarn",
            {"spark.executor.memory": "8g"},
            Memory(GIB, GIB),
            r"spark\.executor\.memoryOverhead: 819m, and 9 images",
        ),
        ("yarn", {"spark.executor.memory": "8g"}, Memory(GIB, 800 * 2**20), None),
        (
            "yarn",
            {},
            Memory(GIB, 400 * 2**20),
            r"spark\.executor\.memoryOverhead: 384m, and 9 images .* need about 512m",
        ),
        ("yarn", {"spark.executor.memoryOverhead": "2g"}, Memory(GIB, 2 * GIB), None),
        ("yarn", {"spark.executor.memoryOverheadFactor": "0.9"}, Memory(GIB, 900 * 2**20), None),
        ("k8s://host", {"spark.executor.memory": "10g"}, Memory(GIB, 4 * GIB), None),
        (
            "k8s://host",
            {"spark.executor.memory": "10g"},
            Memory(GIB, 5 * GIB),
            r"memoryOverhead: 4g, .* need about 5g; give ",
        ),
    ],
)
def test_memory_of_executors_is_compared_with_sparks_settings(
    spark: SparkSession, master: str, settings: dict[str, str], needed: Memory, message: str | None
) -> None:
    """The session is a stand-in but for its JVM, which reads sizes: no test has a YARN."""
    jvm = SimpleNamespace(sc=lambda: SimpleNamespace(isLocal=lambda: False))
    context = SimpleNamespace(master=master, getConf=lambda: settings, _jvm=spark.sparkContext._jvm, _jsc=jvm)
    session: Any = SimpleNamespace(sparkContext=context)
    with pytest.raises(UserError, match=message) if message else nullcontext():
        check_memory(session, needed, "mkldnn", images=9)


def test_memory_beside_the_heap_is_compared_with_the_machine_in_local_mode(spark: SparkSession) -> None:
    check_memory(spark, Memory(GIB, GIB), "mkldnn", images=9)
    line = r"training\.global_batch: 9 images under mkldnn need about 9000g beside Java's heap of \d+g, and this "
    with pytest.raises(UserError, match=line):
        check_memory(spark, Memory(GIB, 9000 * GIB), "mkldnn", images=9)
