"""Training as a whole: check, scan, plan, train, and publish the model directory."""

import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from insitu import artifact, models
from insitu.bigdl import refusals
from insitu.cluster.executors import started_executors
from insitu.cluster.filesystem import FILE_SYSTEM_ERRORS, qualify
from insitu.data.opened import open_data
from insitu.errors import UserError
from insitu.models.transfer import start_from
from insitu.recipe import Bigdl, Recipe
from insitu.registry import find_model
from insitu.tracking import Tracking
from insitu.training.engines.base import Engine, Event, Layout, Listener, TrainingJob, TrainingResult
from insitu.training.prepare import Prepared, check_batch, prepare, resolve, shard
from insitu.training.publish import provenance, publish
from insitu.training.rundir import RunDirectory, persist_result
from insitu.training.supervisor import Supervisor
from insitu.training.watch import ProgressBar
from insitu.training.watch_record import RunRecord
from insitu.training.weights import load_weights, save_weights
from insitu.training.worker import build_model

if TYPE_CHECKING:
    import keras
    from pyspark.sql import SparkSession

    Parent = tuple[keras.Model, artifact.Signature]


def train(
    spark: "SparkSession",
    recipe: Recipe,
    *,
    data: str,
    output: str,
    resume: bool = False,
    listener: Listener | None = None,
    tracking: Tracking | None = None,
) -> dict[str, Any]:
    """Train a recipe on a Parquet dataset and publish a model directory.

    Until it is published the run is in `OUTPUT.run`: checkpoints, history and TensorBoard files. Workers
    that die are started again from the newest checkpoint; what ends the run leaves the checkpoints.

    Args:
        spark: the session on whose executors the workers run.
        recipe: from `insitu.recipe.load`.
        data: a Parquet directory or file, on any file system that Spark reads.
        output: the model directory to make; nothing may be there yet.
        resume: go on with the unfinished run of `output`, if there is one. With the same recipe and number
            of workers the weights become those of a run that was not interrupted.
        listener: called with every event (`insitu.training.engines.base.Listener`); None shows a progress bar.
        tracking: where the run is logged when the model directory is published.

    Returns:
        the summary: `output`, `engine`, `workers`, `precision`, `epochs`, `steps`, `images_per_second`,
        `metrics` (of the whole validation split), `added` (rows of `data.additions`), `quarantined`, `restarts`,
        `resumed_from_step` and `seconds`; of a resumed run `restarts` and `seconds` count those before too. `mlflow`
        where `tracking` is given, and `not_done`, a sentence, where the report could not be drawn or logging failed.

    Raises:
        UserError: anything that the user can mend, found before training where that is possible.
        WorkerError: a worker's code failed.
        WorkerLost: workers died more often than `training.max_restarts`.
    """
    started = time.time()
    check(recipe)
    if tracking:
        tracking.check()
    data, output = qualify(spark, "--data", data), qualify(spark, "--output", output)
    run = RunDirectory(output)
    _check_free(output, run)
    recipe = _qualified(spark, recipe)
    with run.opened(resume=resume), _kept_if_begun(run), _parent_model(recipe) as parent:
        artifact.check_free(output)  # now that nobody else can publish there
        opened = open_data(recipe, data)
        layout = Layout.on(started_executors(spark), recipe.training.workers).with_threads(recipe.training.threads)
        check_batch(recipe.training.global_batch, layout.workers)
        engine = _engine(recipe, spark)
        recipe = engine.settle(recipe, layout, opened, begun=run.precision)
        prepared = prepare(spark, recipe, opened)
        recipe = resolve(recipe, prepared, layout)
        additions = {each.dataset.uri: each.dataset.fingerprint for each in prepared.additions}
        train_plan, validation_plan = shard(recipe, prepared, layout)
        run.claim(recipe, prepared.dataset.fingerprint, additions, rows=prepared.rows, threads=layout.threads)
        first = TrainingJob(
            recipe=recipe,
            class_names=prepared.class_names,
            source=prepared.source,
            train=train_plan,
            validation=validation_plan,
            class_weights=prepared.class_weights(recipe),
            initial_weights=None if parent is None else _transferred(recipe, prepared, parent, run),
            scratch=run.uri,
            checkpoints=run.checkpoints,
            first_epoch=0,
            last_epoch=recipe.training.epochs,
            train_trunk=True,
        )
        with closing(_Watch(run, listener, started)) as watch:
            supervisor = Supervisor(engine, layout, run, watch)
            resumed_from, result = _train_phases(supervisor, first)
        drivers = watch.record.drivers
        # bf16 is how the training computed: stored in the layers it would go wherever the model is loaded or converted
        model = build_model(recipe, len(prepared.class_names), precision="fp32")
        model.set_weights(persist_result(lambda: load_weights(result.weights), "reading the weights", run.uri))
        summary = {
            "output": output,
            "engine": recipe.training.engine,
            "workers": layout.workers,
            "precision": recipe.training.precision,
            "epochs": len(result.history),
            "steps": result.steps,
            "images_per_second": result.images_per_second and round(result.images_per_second, 2),
            "metrics": result.metrics,
            "added": sum(each.rows for each in prepared.additions),
            "quarantined": prepared.scan.bad_rows,
            "restarts": sum(len(driver["restarts"]) for driver in drivers),
            "resumed_from_step": resumed_from,
            "seconds": round(sum(driver["seconds"] for driver in drivers), 1),
        }
        run.check_held()
        undrawn = publish(
            model,
            recipe=recipe,
            prepared=prepared,
            validation=validation_plan,
            result=result,
            run=run,
            summary=summary,
            provenance=provenance(recipe, prepared, summary=summary, drivers=drivers),
        )
        _remove_published(run)
    logged = tracking.attempt(lambda: tracking.log_training(output), output) if tracking else {}
    not_done = [sentence for sentence in (undrawn, logged.get("not_done")) if sentence]
    return summary | logged | ({"not_done": "; ".join(not_done)} if not_done else {})


def _check_free(output: str, run: RunDirectory) -> None:
    """Raise `UserError` where something is at the output already."""
    try:
        artifact.check_free(output)
    except UserError:
        if not run.exists():
            raise
        problem = f"{output} exists, and {run.uri} too: a job published its model, and ended before it removed its run"
        mend = f"look at the model with insitu show, then remove {run.uri}, or name a new directory"
        raise UserError("--output", problem, mend) from None


def _remove_published(run: RunDirectory) -> None:
    try:
        run.remove()
    except FILE_SYSTEM_ERRORS as error:
        print(f"the model is published; {run.uri} could not be removed ({error}): remove it", file=sys.stderr)


def check(recipe: Recipe) -> None:
    """Find the mistakes that need neither Spark nor the data.

    Raises:
        UserError: a topology, a batch or a feature of the engine that cannot be had.
    """
    models.check(
        recipe.model.name,
        size=recipe.data.map_size,
        options=recipe.model.options,
        normalization=recipe.model.normalization,
        input=recipe.data.input,
    )
    if recipe.training.workers:
        check_batch(recipe.training.global_batch, recipe.training.workers)
    if recipe.training.engine == "bigdl":
        refusals.check_recipe(recipe)
    elif recipe.training.bigdl != Bigdl():
        mend = "leave it out, or train with training.engine=bigdl"
        raise UserError("training.bigdl", f"{recipe.training.engine} has no engine types", mend)


def _qualified(spark: "SparkSession", recipe: Recipe) -> Recipe:
    """The recipe with the full URIs of what it names."""
    additions = tuple(qualify(spark, "data.additions", uri) for uri in recipe.data.additions)
    init = find_model(spark, "model.init", recipe.model.init) if recipe.model.init else None
    data = recipe.data.model_copy(update={"additions": additions})
    return recipe.model_copy(update={"data": data, "model": recipe.model.model_copy(update={"init": init})})


def _transferred(recipe: Recipe, prepared: Prepared, parent: "Parent", run: RunDirectory) -> str:
    """Where the weights are that training starts from: the parent's trunk, and its head or a new one."""
    source, signature = parent
    if recipe.model.keep_head:
        _check_head(recipe, prepared.class_names, signature)
    model = build_model(recipe, len(prepared.class_names))
    start_from(model, source, keep_head=recipe.model.keep_head)
    uri = f"{run.uri}/initial.npz"
    persist_result(lambda: save_weights(model.get_weights(), uri), "writing the initial weights", run.uri)
    return uri


def _check_head(recipe: Recipe, class_names: tuple[str, ...], parent: artifact.Signature) -> None:
    theirs, ours = (parent.task, parent.class_names), (recipe.task.kind, class_names)
    if theirs != ours:
        heads = [f"{kind} of {', '.join(names)}" for kind, names in (theirs, ours)]
        problem = f"the head of {recipe.model.init} is {heads[0]}, and here {heads[1]} is learned"
        raise UserError("model.keep_head", problem, "bring labels of its classes, in its order, or leave this out")


def _train_phases(supervisor: Supervisor, job: TrainingJob) -> tuple[int | None, TrainingResult]:
    """Train the epochs with a frozen and then with a free trunk, from the newest checkpoint on if there is one.

    Returns:
        the step that was resumed from, None where it was none, and the last phase's result.
    """
    epochs, frozen = job.recipe.training.epochs, min(job.recipe.model.freeze_trunk_epochs, job.recipe.training.epochs)
    phases = [replace(job, last_epoch=frozen, train_trunk=False)] if frozen else []
    phases += [replace(job, first_epoch=frozen)] if frozen < epochs else []
    newest = supervisor.newest_step(job)
    done = -(-(newest or 0) // job.train.steps)
    if done > epochs:
        raise UserError("training.epochs", f"{epochs}, and the run is in its epoch {done}", f"give at least {done}")
    result: TrainingResult | None = None
    for phase in phases:
        if newest is not None and newest > phase.last_epoch * job.train.steps:
            continue
        if result:
            phase = replace(phase, initial_weights=result.weights, history=tuple(result.history))
        result = supervisor.train(supervisor.resumed(phase))
    assert result
    return newest, result


class _Watch:
    """Hands every event to the run's record and to the listener."""

    def __init__(self, run: RunDirectory, listener: Listener | None, started: float) -> None:
        self._bar = ProgressBar(sys.stderr)
        self._listener = listener or self._bar
        self.record = persist_result(
            lambda: RunRecord(run.uri, started=started, tell=self._bar.say), "reading the run's record", run.uri
        )

    def __call__(self, event: Event) -> None:
        if event["event"] in ("step", "restart"):
            event = event | {"seconds": round(time.time() - self.record.began, 3)}
        self.record(event)
        self._listener(event)

    def close(self) -> None:
        self.record.close()
        self._bar.close()


def _engine(recipe: Recipe, spark: "SparkSession") -> Engine:
    if recipe.training.engine == "bigdl":
        from insitu.training.engines.bigdl import BigdlEngine

        return BigdlEngine(spark)
    from insitu.training.engines.orca import OrcaEngine

    return OrcaEngine(spark)


@contextmanager
def _kept_if_begun(run: RunDirectory) -> Iterator[None]:
    """When the run ends early: keep its directory if it has a checkpoint, and say so; else remove what it made."""
    try:
        yield
    except BaseException:
        try:
            steps = run.store(keep=1).steps()
            if steps:
                print(f"kept: {run.uri}, last checkpoint after step {steps[-1]}; --resume goes on", file=sys.stderr)
            elif run.is_new:
                run.discard()
        except FILE_SYSTEM_ERRORS as away:
            print(f"{run.uri} cannot be reached ({away})", file=sys.stderr)
        raise


@contextmanager
def _parent_model(recipe: Recipe) -> Iterator["Parent | None"]:
    """The verified model that `model.init` names, if it names one, and its signature."""
    if recipe.model.init is None:
        yield None
        return
    with artifact.verified(recipe.model.init, setting="model.init", part=artifact.MODEL) as directory:
        signature = artifact.Signature.from_json(artifact.read_json(directory / artifact.SIGNATURE))
        yield artifact.load_keras(directory), signature
