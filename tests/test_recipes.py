"""Every recipe of conf/recipes: it is valid, opens as a manual, and holds the published numbers."""

import re
import shlex
import subprocess
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from insitu.data.synthetic import write_xrays
from insitu.data.xray import CLASSES
from insitu.errors import UserError
from insitu.recipe import PlateauDecay, Recipe, load
from insitu.recipe.schema import SGD, Section
from insitu.recommend.recipe import load_als
from insitu.training.run import check
from insitu.training.worker import learning_rate
from training.digits_rows import scanned

ROOT = Path(__file__).parent.parent
RECIPES = sorted((ROOT / "conf/recipes").iterdir())
ALS = [path for path in RECIPES if path.stem.startswith("als")]
NETWORKS = [path for path in RECIPES if path not in ALS]
STEPS = 10  # steps an epoch, for the schedules


def recipe(name: str, *overrides: str) -> Recipe:
    return load(ROOT / f"conf/recipes/{name}.yaml", overrides)


def job(path: Path) -> str:
    """The program that a recipe is for."""
    return "jobs/train_als.py" if path in ALS else "jobs/train_cnn.py"


def read(path: Path, overrides: Sequence[str] = ()) -> Section:
    """A recipe as its job reads it."""
    return load_als(path, overrides) if path in ALS else load(path, overrides)


def manual(path: Path) -> str:
    """The comment that opens a recipe."""
    comment = re.match(r"(?:#.*\n)*", path.read_text())
    assert comment is not None
    return re.sub(r"^# ?", "", comment[0], flags=re.MULTILINE)


def command(path: Path) -> list[str]:
    """What follows the job's name in the command of a recipe's manual."""
    joined = manual(path).replace("\\\n", " ")
    line = re.search(rf"spark-submit .*{re.escape(job(path))} (.*)", joined)
    assert line is not None, f"{path.name}: no spark-submit command"
    return shlex.split(line[1])


def rates(given: Recipe) -> dict[int, float]:
    """The learning rate at the start of each epoch."""
    schedule = learning_rate(given, STEPS)
    return {epoch: schedule.at(epoch * STEPS) for epoch in range(given.training.epochs)}


@cache
def job_flags(job: str) -> set[str]:
    done = subprocess.run([sys.executable, ROOT / job, "--help"], capture_output=True, text=True, check=True)
    return set(re.findall(r"--[a-z-]+", done.stdout))


def test_the_recipes_are_all_there() -> None:
    assert {path.name for path in RECIPES} >= {
        "als.yaml",
        "als_implicit.yaml",
        "chexnet-densenet121.yaml",
        "chexnet-vgg16-large-batch.yaml",
        "demo.yaml",
        "digits.yaml",
        "googlenet.yaml",
        "mammography-transfer.yaml",
        "mcnn.yaml",
        "resnet50.yaml",
        "windows.yaml",
    }


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
class TestEveryRecipe:
    def test_opens_as_a_manual(self, path: Path) -> None:
        for part in ("System", "Data", "Run", "Expect", "Override"):
            assert re.search(rf"^{part}  ", manual(path), re.MULTILINE), f"{path.name}: no {part}"
        assert len(manual(path).splitlines()) <= 25

    def test_command_is_the_jobs_own(self, path: Path) -> None:
        words = command(path)
        assert {word for word in words if word.startswith("--")} <= job_flags(job(path))
        assert words[words.index("--recipe") + 1] == f"conf/recipes/{path.name}"
        assert {"--data", "--output"} <= set(words)

    def test_overrides_are_accepted(self, path: Path) -> None:
        overrides = re.findall(r"--set (\S+)", manual(path))
        assert overrides
        read(path, overrides)

    def test_data_of_the_command_is_what_the_manual_makes(self, path: Path) -> None:
        words, data = command(path), re.search(r"--output ([^\s;]+)|insitu data \w+ (\S+)", manual(path))
        assert data is not None
        assert words[words.index("--data") + 1] in data.groups()


@pytest.mark.parametrize("path", NETWORKS, ids=lambda path: path.stem)
def test_network_can_be_built(path: Path) -> None:
    loaded = load(path)
    check(loaded)
    assert loaded.task.classes is None, "classes are left to the dataset"


def test_chexnet_densenet121_is_the_papers() -> None:
    chexnet = recipe("chexnet-densenet121")
    assert (chexnet.model.name, chexnet.data.size) == ("densenet121", (224, 224))
    assert chexnet.training.augment.flip
    assert chexnet.training.schedule.decay == PlateauDecay(kind="plateau", factor=0.1, patience_epochs=1)
    for doublings in range(7):
        at_batch = recipe("chexnet-densenet121", f"training.global_batch={8 * 2**doublings}")
        assert set(rates(at_batch).values()) == {0.0005 * 2**doublings}


def test_chexnet_vgg16_rate_warms_up_holds_and_decays_as_in_the_paper() -> None:
    vgg = recipe("chexnet-vgg16-large-batch")
    assert (vgg.model.name, vgg.training.optimizer.name, vgg.training.global_batch) == ("vgg16", "adadelta", 8192)
    found = rates(vgg)
    warmup_ends = [learning_rate(vgg, STEPS).at((epoch + 1) * STEPS - 1) for epoch in range(5)]
    assert warmup_ends == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5], rel=1e-12)
    assert {found[epoch] for epoch in range(5, 50)} == {0.5}
    expected = [0.05, 0.005, 0.0005, 0.00005, 0.000005]
    assert [found[epoch] for epoch in range(50, 55)] == pytest.approx(expected, rel=1e-12)
    last_step_before_decay = learning_rate(vgg, STEPS).at(50 * STEPS - 1)
    assert last_step_before_decay == 0.5


def test_mammography_runs_at_the_papers_rates() -> None:
    mammography = recipe("mammography-transfer")
    assert (mammography.model.name, mammography.data.size) == ("densenet121", (299, 299))
    assert (mammography.training.epochs, mammography.training.global_batch) == (10, 64)
    assert set(rates(mammography).values()) == {0.004}
    assert set(rates(recipe("mammography-transfer", "training.global_batch=16")).values()) == {0.001}


def test_mammography_takes_the_chest_models_input() -> None:
    assert recipe("mammography-transfer").data.channels == recipe("chexnet-densenet121").data.channels
    assert recipe("mammography-transfer", "model.init=chexnet").model.init == "chexnet"


def test_googlenet_loses_4_percent_every_8_epochs() -> None:
    found = rates(recipe("googlenet", "training.global_batch=32"))
    for epoch in range(5, 60):
        assert found[epoch] == pytest.approx(0.01 * 0.96 ** (epoch // 8), rel=1e-12)
    assert rates(recipe("googlenet"))[5] == pytest.approx(0.01 * 1536 / 32)


@pytest.mark.parametrize(("batch", "peak"), [(256, 0.1), (8192, 3.2)])
def test_resnet50_follows_goyal_et_al(batch: int, peak: float) -> None:
    resnet = recipe("resnet50", f"training.global_batch={batch}")
    optimizer = SGD(name="sgd", learning_rate=0.1, base_batch=256, momentum=0.9, weight_decay=1e-4)
    assert resnet.training.optimizer == optimizer
    found = rates(resnet)
    assert [found[epoch] for epoch in (5, 29, 30, 59, 60, 79, 80, 89)] == pytest.approx(
        [peak, peak, peak / 10, peak / 10, peak / 100, peak / 100, peak / 1000, peak / 1000], rel=1e-12
    )


def test_resnet50_warms_up_from_the_rate_of_batch_256() -> None:
    schedule = learning_rate(recipe("resnet50", "training.global_batch=8192"), STEPS)
    expected = [0.1 + 3.1 * step / (5 * STEPS) for step in range(1, 5 * STEPS + 1)]
    assert [schedule.at(step) for step in range(5 * STEPS)] == pytest.approx(expected)


def test_mcnn_sees_whole_images_and_scales_its_rate() -> None:
    mcnn = recipe("mcnn")
    assert (mcnn.data.size, mcnn.data.channels) == ((1024, 1280), 3)
    fourfold = recipe("mcnn", f"training.global_batch={4 * mcnn.training.global_batch}")
    assert rates(fourfold)[5] == pytest.approx(4 * rates(mcnn)[5])


@pytest.mark.parametrize("name", ["chexnet-densenet121", "chexnet-vgg16-large-batch"])
def test_chexnet_takes_the_classes_of_its_synthetic_dataset(name: str, spark: SparkSession, tmp_path: Path) -> None:
    data = f"file://{tmp_path}/xrays"
    write_xrays(spark, data, images=64, size=32, seed=1)
    assert scanned(spark, recipe(name, "data.size=[32, 32]"), data).class_names == CLASSES


def test_classes_that_the_dataset_has_in_another_order_are_refused(spark: SparkSession, tmp_path: Path) -> None:
    data = f"file://{tmp_path}/xrays"
    write_xrays(spark, data, images=64, size=32, seed=1)
    named = sorted(CLASSES)
    alphabetical = recipe("chexnet-densenet121", f"task.classes={named}", "data.size=[32, 32]")
    with pytest.raises(
        UserError, match=r"'Cardiomegaly' is class 1 here and class 10 in the dataset's metadata; .*null"
    ):
        scanned(spark, alphabetical, data)
