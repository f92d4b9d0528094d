"""MLflow: runs of trainings and promotions, and versions of a registered model. No other module knows MLflow.

What is logged is read from what is published already, and a run is known by a tag: logging again, by `insitu log`,
completes what an earlier try has begun and repeats nothing.
"""

import argparse
import calendar
import json
import os
import re
import shlex
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from insitu import artifact
from insitu.cluster.filesystem import full_uri
from insitu.errors import UserError

if TYPE_CHECKING:
    from mlflow import MlflowClient

_EXPERIMENT = "insitu"
_PARAMS_AT_ONCE, _METRICS_AT_ONCE = 100, 1000  # MLflow's own limits
_SETTINGS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",  # which would report its use to its maker
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",  # where a job's summary goes
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "3",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
}


class TrackingError(RuntimeError):
    """The MLflow server does not take what is to be logged; its own words, on one line."""


@dataclass(frozen=True)
class Version:
    """A model directory: what names it wherever it lies, and its URI."""

    identity: str
    uri: str


@dataclass(frozen=True)
class _Value:
    """Of a metric; `step` is an epoch, from 1, or 0 of what has none."""

    name: str
    value: float
    step: int = 0


@dataclass(frozen=True)
class Tracking:
    """Where runs are logged.

    Attributes:
        uri: of an MLflow server, as `http://HOST:5000`.
        experiment: its name; it is made where there is none.
        registered_model: its name, likewise; None registers no version.
    """

    uri: str
    experiment: str = _EXPERIMENT
    registered_model: str | None = None

    def check(self) -> None:
        """Make the experiment and the registered model where there are none: whether the server takes runs.

        Raises:
            UserError: it does not.
        """
        try:
            with self._client() as client:
                self._experiment_id(client)
                self._make_registered_model(client)
        except TrackingError as error:
            problem = f"the MLflow server {self.uri} does not take runs ({error})"
            raise UserError("--tracking-uri", problem, "start it, correct the address, or leave it out") from None

    def log_training(self, directory: str) -> dict[str, Any]:
        """Log the run that made a model directory, and register the directory.

        Args:
            directory: path or URI of a model directory of jobs/train_cnn.py.

        Returns:
            `run_id`, and `version` of the registered model, None where none is named.

        Raises:
            UserError: no such directory, or a damaged one.
            TrackingError: the server does not take it.
        """
        from insitu.report.runs import flattened, read_run

        uri = full_uri(directory)
        with artifact.verified(uri, setting="DIR", part=artifact.MODEL) as local:
            run, model = read_run(local), Version(artifact.identity(str(local)), uri)
            texts = {name: (local / name).read_text() for name in _TEXTS}
            page = local / "report" / "index.html"
            if page.exists():  # a report that could not be drawn costs no model
                texts["report.html"] = page.read_text()
        data = run.provenance["data"]
        tags = {
            "insitu.identity": model.identity,
            "insitu.uri": model.uri,
            "insitu.data": data["uri"],
            "insitu.data_fingerprint": data["fingerprint"],
            "insitu.commit": run.provenance["code"]["commit"],
        }
        values = [_Value(f"final.{name}", value) for name, value in _scalars(run.metrics)]
        for line in run.history:
            epoch, seen = line["epoch"] + 1, {name: line[name] for name in _OF_EPOCH}
            values += [_Value(name, value, epoch) for name, value in _scalars(seen)]
            values += [_Value(f"validation.{name}", value, epoch) for name, value in _scalars(line["validation"])]
        started_ms = _milliseconds(run.provenance["started"])
        with self._client() as client:
            run_id = self._log(
                client,
                name=uri.rpartition("/")[2],
                key=("insitu.trained", model.identity),
                tags=tags,
                params=flattened(run.recipe),
                values=values,
                texts=texts,
                started_ms=started_ms,
                ended_ms=started_ms + int(1000 * run.provenance["run"]["seconds"]),
            )
            return {"run_id": run_id, "version": self._registered(client, model, run_id)}

    def log_promotions(self, standing: Mapping[str, tuple[Version, Mapping[str, Any]] | None]) -> dict[str, Any]:
        """Log how a registry's versions were promoted, register them, and set the registered model's aliases.

        Args:
            standing: by alias, `current` and `previous`, the version and its record of `insitu.scoring.promote`; None
                where the registry has none.

        Returns:
            of `current`, as `log_training`.

        Raises:
            TrackingError: the server does not take it.
        """
        logged: dict[str, Any] = {}
        with self._client() as client:
            for alias, promoted in standing.items():
                if promoted:
                    logged[alias] = self._log_promotion(client, *promoted)
                if not self.registered_model:
                    continue
                if promoted:
                    client.set_registered_model_alias(self.registered_model, alias, logged[alias]["version"])
                else:
                    client.delete_registered_model_alias(self.registered_model, alias)
        return logged["current"]

    def attempt(self, log: Callable[[], dict[str, Any]], of: str) -> dict[str, Any]:
        """Log what is published; where the server fails, that is told and nothing else is lost.

        Args:
            log: does it.
            of: the path or URI that `insitu log` would take.

        Returns:
            for the summary: `mlflow`, what was logged; or None, and in `not_done` what is to be done.
        """
        try:
            return {"mlflow": log()}
        except TrackingError as error:
            again = ["insitu", "log", of, "--tracking-uri", self.uri, "--experiment", self.experiment]
            if self.registered_model:
                again += ["--registered-model", self.registered_model]
            return {
                "mlflow": None,
                "not_done": f"{of} is published, but not logged in MLflow ({error}); run {shlex.join(again)}",
            }

    @contextmanager
    def _client(self) -> Iterator["MlflowClient"]:
        for name, value in _SETTINGS.items():
            os.environ.setdefault(name, value)
        from mlflow import MlflowClient
        from mlflow.exceptions import MlflowException

        try:
            yield MlflowClient(self.uri, self.uri)
        except (MlflowException, OSError, ImportError) as error:  # the last where a store wants another package
            raise TrackingError(" ".join(str(error).split())) from error

    def _experiment_id(self, client: "MlflowClient") -> str:
        found = client.get_experiment_by_name(self.experiment)
        return found.experiment_id if found else client.create_experiment(self.experiment)

    def _make_registered_model(self, client: "MlflowClient") -> None:
        from mlflow.exceptions import MlflowException

        if not self.registered_model:
            return
        try:
            client.get_registered_model(self.registered_model)
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            client.create_registered_model(self.registered_model)

    def _log(
        self,
        client: "MlflowClient",
        *,
        name: str,
        key: tuple[str, str],
        tags: Mapping[str, str],
        params: Mapping[str, Any],
        values: Sequence[_Value],
        texts: Mapping[str, str],
        started_ms: int,
        ended_ms: int,
    ) -> str:
        """Log a run, or complete the one that has this key among its tags; returns its id."""
        from mlflow.entities import Metric, Param

        experiment = self._experiment_id(client)
        tag, of = key
        found = client.search_runs([experiment], f"tags.`{tag}` = '{of}'", max_results=1)
        run = found[0] if found else client.create_run(experiment, started_ms, {tag: of, **tags}, run_name=name)
        run_id = run.info.run_id
        if run.info.status == "FINISHED":
            return run_id
        for some in _parts([Param(key, _text(value)) for key, value in params.items()], _PARAMS_AT_ONCE):
            client.log_batch(run_id, params=some)
        metrics = [Metric(_metric_name(each.name), each.value, started_ms, each.step) for each in values]
        for some in _parts(metrics, _METRICS_AT_ONCE):
            client.log_batch(run_id, metrics=some)
        for file, text in texts.items():
            client.log_text(run_id, text, file)
        client.set_terminated(run_id, "FINISHED", ended_ms)
        return run_id

    def _log_promotion(self, client: "MlflowClient", model: Version, record: Mapping[str, Any]) -> dict[str, Any]:
        from insitu.report.runs import flattened

        by_class = ("holdout.metrics.", "replay.classes.")
        facts = {name: value for name, value in flattened(dict(record)).items() if not name.startswith(by_class)}
        measured = {
            name for name, value in facts.items() if isinstance(value, float) and not name.startswith("limits.")
        }
        promoted_ms = _milliseconds(record["promoted"])
        run_id = self._log(
            client,
            name=f"promote {model.uri.rpartition('/')[2]}",
            key=("insitu.promoted", record["id"]),
            tags={
                "insitu.identity": model.identity,
                "insitu.uri": model.uri,
                "insitu.data": record["holdout"]["uri"],
                "insitu.data_fingerprint": record["holdout"]["fingerprint"],
                "insitu.commit": record["code"]["commit"],
            },
            params={name: value for name, value in facts.items() if name not in measured},
            values=[_Value(name, facts[name]) for name in sorted(measured)],
            texts={"promotion.json": json.dumps(record, indent=2)},
            started_ms=promoted_ms,
            ended_ms=promoted_ms,
        )
        return {"run_id": run_id, "version": self._registered(client, model, run_id)}

    def _registered(self, client: "MlflowClient", model: Version, run_id: str) -> str | None:
        """The version of the registered model that is this directory, made where there is none.

        MLflow's server takes no path of its own disk for a source; of such a directory that is the run's artifacts.
        """
        if self.registered_model is None:
            return None
        self._make_registered_model(client)
        mine = f"tags.`insitu.identity` = '{model.identity}'"
        found = [each for each in client.search_model_versions(mine) if each.name == self.registered_model]
        if found:
            return found[0].version
        local = model.uri.startswith("file:")
        source = client.get_run(run_id).info.artifact_uri if local else model.uri
        tags = {"insitu.identity": model.identity, "insitu.uri": model.uri}
        return client.create_model_version(self.registered_model, source, run_id, tags=tags).version


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of every command that logs in MLflow."""
    parser.add_argument("--tracking-uri", metavar="URI", help="MLflow server to log the run in")
    parser.add_argument("--experiment", metavar="NAME", help=f"of MLflow (default: {_EXPERIMENT})")
    parser.add_argument("--registered-model", metavar="NAME", help="of MLflow, to register the model as a version of")


def from_options(args: argparse.Namespace) -> Tracking | None:
    """What the options say; None where nothing is to be logged.

    Raises:
        UserError: an option that says nothing without `--tracking-uri`.
    """
    if args.tracking_uri:
        return Tracking(args.tracking_uri, args.experiment or _EXPERIMENT, args.registered_model)
    for option, value in (("--experiment", args.experiment), ("--registered-model", args.registered_model)):
        if value:
            raise UserError(option, f"{value}, which is of MLflow, without --tracking-uri", "give that too")
    return None


_TEXTS = (artifact.RECIPE, artifact.METRICS, artifact.PROVENANCE)
_OF_EPOCH = ("loss", "learning_rate", "images_per_second")


def _scalars(tree: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """The floats of nested sections by their dotted keys."""
    from insitu.report.runs import flattened

    return ((name, value) for name, value in flattened(dict(tree)).items() if isinstance(value, float))


def _metric_name(name: str) -> str:
    """As MLflow takes names; a class may be called anything."""
    return re.sub(r"[^\w. -]", "_", name)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _milliseconds(time_utc: str) -> int:
    """Of a time such as 2024-02-29T01:02:03Z, since 1970."""
    return 1000 * calendar.timegm(time.strptime(time_utc, "%Y-%m-%dT%H:%M:%SZ"))


def _parts(items: list[Any], most: int) -> Iterator[list[Any]]:
    return (items[start : start + most] for start in range(0, len(items), most))
