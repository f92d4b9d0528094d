"""The trials of a sweep: drawn once, run one after the other, gone on with after an interruption."""

import math
import re
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, distribution_to_json
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import Trial, TrialState

from insitu import artifact
from insitu.cluster.executors import started_executors, wait_for_executors
from insitu.cluster.filesystem import FILE_SYSTEM_ERRORS, open_filesystem, qualify, say
from insitu.errors import UserError, WorkerError, WorkerLost
from insitu.recipe import Recipe, load
from insitu.sweep.picture import save_picture
from insitu.sweep.results import AGAIN, LOST, Results, figures, latest, place
from insitu.sweep.space import Params, overrides
from insitu.training.engines.base import Listener
from insitu.training.run import check, train
from insitu.training.rundir import persist_result

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

optuna.logging.set_verbosity(optuna.logging.WARNING)

JOURNAL = "sweep.journal"
METRICS = {"multilabel": "auc_macro", "multiclass": "accuracy"}
"""What a sweep looks for, by task: of the validation split, larger is better."""


_FRAMES = ("Traceback", "Driver stacktrace")


def sweep(
    spark: "SparkSession",
    *,
    recipe: str,
    settings: Sequence[str] = (),
    data: str,
    output: str,
    space: dict[str, BaseDistribution],
    random: int | None = None,
    seed: int = 17,
    listener: Listener | None = None,
) -> dict[str, Any]:
    """Train a recipe at every point of a grid, or at random points, and print the table.

    Called again with the same arguments it goes on: finished trials stay, an interrupted one is resumed, and so is
    one whose workers were lost too often.

    Args:
        spark: the session that all trials run in.
        recipe: a recipe file.
        settings: overrides for all trials, as `--set` takes them.
        data: the dataset, as `insitu.train` takes it.
        output: takes `runs/` with a model directory a trial, `sweep.csv`, `sweep.svg` and the search's own
            `sweep.journal`; all of them are up to date after each trial.
        space: from `parse_space`; the first key is the picture's x axis, the second its lines.
        random: how many points to draw; None takes the whole grid, which then has no range.
        seed: of the draw and of the order.
        listener: called with every event of the trials' workers.

    Returns:
        `output`, `metric`, `trials`, `failed` (trials that ended with a `UserError`, such as a loss that
        became NaN, or with a `WorkerError`; `sweep.csv` has the reasons), and `best`: a row of `sweep.csv`;
        `not_done`, a sentence, where a trial's report could not be drawn.

    Raises:
        UserError: a trial's settings are no valid recipe, found before the first one runs; `output` holds
            something else or a sweep with other arguments; no trial ended well.
    """
    base = load(recipe, settings)
    drawn = _draw(space, random, seed)
    for params in drawn:
        _recipe(recipe, settings, params)
    data, output = qualify(spark, "--data", data), qualify(spark, "--output", output)
    arguments = {
        "--recipe or --set": base.model_dump(mode="json"),
        "--data": data,
        "--grid or --range": {key: distribution_to_json(space[key]) for key in space},
        "--random": random,
        "--seed": seed,
    }
    with tempfile.TemporaryDirectory(prefix="insitu-") as scratch:
        study = _study(Path(scratch), output, arguments, drawn)
        results = Results(study, space, METRICS[base.task.kind])
        executors = len(started_executors(spark))
        while study.get_trials(deepcopy=False, states=(TrialState.WAITING,)):
            wait_for_executors(spark, executors)  # the trial before may have lost one
            trial = study.ask(space)
            directory = f"{output}/runs/{_name(trial)}"
            say(f"sweep: trial {place(trial) + 1} of {len(drawn)}: {directory}")
            found = _run(
                spark,
                _recipe(recipe, settings, trial.params),
                data=data,
                sweep=output,
                output=directory,
                metric=results.metric,
                listener=listener,
            )
            _record(study, trial, found)
            persist_result(partial(_publish, results, Path(scratch), output), "writing the table", output)
        print(results.table())
        if not results.validated_alike():
            say("sweep: the trials were validated on different rows, to which what is best may owe it: without a split")
            say("column in the data, training.seed and data.holdout draw them")
        return {"output": output, **results.summary()}


def _draw(space: dict[str, BaseDistribution], random: int | None, seed: int) -> list[Params]:
    """The settings of every trial."""
    if random is not None and random < 1:
        raise UserError("--random", f"expected a number of trials, got {random}", "give 1 or more")
    choices = {key: d.choices for key, d in space.items() if isinstance(d, CategoricalDistribution)}
    if random is not None:
        study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
    elif len(choices) == len(space):
        study = optuna.create_study(sampler=optuna.samplers.GridSampler(choices, seed=seed))
    else:
        raise UserError("--range", "a grid has no ranges", "add --random N, or give values with --grid")
    trials = math.prod(map(len, choices.values())) if random is None else random
    return [study.ask(space).params for _ in range(trials)]


def _recipe(path: str, settings: Sequence[str], params: Params) -> Recipe:
    """A trial's recipe, checked as far as it can be without the data."""
    recipe = load(path, [*settings, *overrides(params)])
    check(recipe)
    return recipe


def _study(scratch: Path, output: str, arguments: dict[str, Any], drawn: list[Params]) -> optuna.Study:
    """The sweep's trials as its journal has them, or all of them waiting where there is no journal yet.

    The journal is published when a trial has ended, and never with one that runs: what is interrupted still waits.
    """
    file_system, path = open_filesystem(output)
    begun = file_system.exists(f"{path}/{JOURNAL}")
    if begun:
        artifact.download(f"{output}/{JOURNAL}", scratch / JOURNAL)
    else:
        artifact.check_free(output)
    storage = JournalStorage(JournalFileBackend(str(scratch / JOURNAL)))
    study = optuna.create_study(storage=storage, study_name="sweep", direction="maximize", load_if_exists=True)
    if begun:
        _check_same(study.user_attrs["arguments"], arguments, output)
        for trial in latest(study):
            if trial.user_attrs.get(LOST):
                study.enqueue_trial(trial.params, user_attrs={AGAIN: place(trial)})
        return study
    study.set_user_attr("arguments", arguments)
    for params in drawn:
        study.enqueue_trial(params)
    try:
        file_system.makedirs(path)
    except FILE_SYSTEM_ERRORS as error:
        raise UserError("--output", f"{output} cannot be made ({error})", "name a place that can") from None
    artifact.upload(scratch / JOURNAL, f"{output}/{JOURNAL}")
    return study


def _check_same(before: dict[str, Any], now: dict[str, Any], output: str) -> None:
    for name, value in now.items():
        if before[name] != value:
            mend = "give the same again to go on with it, or name a new --output"
            raise UserError(name, f"the sweep in {output} was begun with another value", mend)


def _name(trial: Trial) -> str:
    """Such as `007-global-batch-8`; safe on every file system."""
    settings = (setting.partition("=") for setting in overrides(trial.params))
    words = re.findall(r"[A-Za-z0-9.]+", " ".join(f"{key.rpartition('.')[2]} {value}" for key, _, value in settings))
    return "-".join([f"{place(trial):03}", *words])[:80]


def _run(
    spark: "SparkSession", recipe: Recipe, *, data: str, sweep: str, output: str, metric: str, listener: Listener | None
) -> dict[str, Any]:
    """Make a trial's model directory where it is not there already.

    Returns:
        its figures, or the `reason` for none; `not_done` as `train` says it.
    """
    undone: dict[str, Any] = {}
    there = partial(persist_result, what="looking for the trial", uri=output)
    try:
        if not there(partial(_exists, output, sweep)):
            resume = there(partial(_exists, f"{output}.run", sweep))
            summary = train(spark, recipe, data=data, output=output, resume=resume, listener=listener)
            undone = {name: summary[name] for name in summary if name == "not_done"}
        return persist_result(partial(figures, output, metric), "reading the trial", output) | undone
    except UserError as error:
        if error.setting.startswith("--") or error.setting == "TMPDIR":  # no other trial would fare better
            raise
        return {"reason": str(error)}
    except WorkerError as error:  # such as a batch that its memory does not hold: the next trial is another
        cause = str(error.__cause__ or error)  # the error of a last restart tells how to go on with a run of its own
        say(cause)
        return {"reason": _in_a_line(cause), LOST: isinstance(error, WorkerLost)}


def _exists(uri: str, sweep: str) -> bool:
    """Whether something is there; an error where not even the sweep's journal is, since its file system is away."""
    file_system, path = open_filesystem(uri)
    file_system.info(f"{open_filesystem(sweep)[1]}/{JOURNAL}")
    return file_system.exists(path)


def _in_a_line(cause: str) -> str:
    """Who failed and of what; the frames of a Python or Java traceback between and behind them are left out."""
    who, *traceback = cause.splitlines()
    told = [line for line in traceback if line[:1].strip() and not line.startswith(_FRAMES)]
    return " ".join([who, *told[-1:]])


def _record(study: optuna.Study, trial: Trial, found: dict[str, Any]) -> None:
    for name, value in found.items():
        trial.set_user_attr(name, value)
    study.tell(trial, found.get("metric"), TrialState.FAIL if "reason" in found else TrialState.COMPLETE)


def _publish(results: Results, scratch: Path, output: str) -> None:
    results.write_csv(scratch / "sweep.csv")
    save_picture(results, scratch / "sweep.svg")
    for file in ("sweep.csv", "sweep.svg", JOURNAL):
        artifact.upload(scratch / file, f"{output}/{file}")
