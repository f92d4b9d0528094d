"""From a candidate to the current version of a registry, if it is not worse; and back."""

import sys
import time
from collections.abc import Mapping
from dataclasses import asdict
from itertools import chain
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from insitu import artifact
from insitu.cluster.filesystem import full_uri, qualify
from insitu.errors import UserError
from insitu.provenance import code_version
from insitu.recipe import load
from insitu.registry import Registry
from insitu.scoring.holdout import CANDIDATE, CURRENT, OnHoldout, judge_on_holdout
from insitu.scoring.ir import Precision
from insitu.scoring.replay import OnReplay, compare_on_replay
from insitu.scoring.shipped import ShippedModel, ship
from insitu.scoring.thresholds import Thresholds
from insitu.tracking import Tracking, Version

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

_BY_DEFAULT = Thresholds()


def promote(
    spark: "SparkSession",
    *,
    candidate: str,
    registry: str,
    holdout: str,
    replay: str | None = None,
    replay_days: float = 7.0,
    max_drop: float = 0.0,
    min_agreement: float = 0.9,
    precision: Precision | None = None,
    thresholds: Thresholds = _BY_DEFAULT,
    image_column: str | None = None,
    tensor_column: str | None = None,
    tracking: Tracking | None = None,
) -> dict[str, Any]:
    """Make a model the current version of a registry, if it is not worse than the one that is.

    Both are scored as `insitu.score_batch` does it. The first model of a registry has only to score the holdout.

    Args:
        spark: the session whose executors score.
        candidate: a model directory.
        registry: a folder on any file system; made where there is none. Its current version becomes the previous one.
        holdout: a labelled dataset, as `judge_on_holdout` takes it.
        replay: a folder of recent rows, as `compare_on_replay` takes it; None compares on the holdout alone.
        replay_days: rows in files that were modified longer ago are left out of the replay.
        max_drop: how far the candidate's metric, macro AUC where a row may have several labels and accuracy where it
            has one, may be below the current version's.
        min_agreement: the smallest share of the replay's rows on which the decisions have to agree.
        precision: as for `insitu.score`; None is each model's own.
        thresholds: of the decisions.
        image_column, tensor_column: of the replay; None finds the only one.
        tracking: where the promotion is logged, if it takes place.

    Returns:
        the summary: `promoted`, `registry`, `current` and `previous` (names of versions), `holdout`, `replay` and
        `seconds`; `mlflow` where `tracking` is given; `not_done`, a sentence, where the candidate is worse or was not
        logged.

    Raises:
        UserError: anything that the user can mend.
    """
    started = time.time()
    _check(max_drop, min_agreement, replay_days)
    if tracking:
        tracking.check()
    candidate, registry, holdout = (
        qualify(spark, setting, path)
        for setting, path in (("--candidate", candidate), ("--registry", registry), ("--holdout", holdout))
    )
    home = Registry(registry, setting="--registry")
    home.check()
    before = home.standing()
    with artifact.verified(candidate, setting="--candidate", part=artifact.MODEL) as local:
        recipe, provenance = load(local / artifact.RECIPE, []), artifact.read_json(local / artifact.PROVENANCE)
        models = {CANDIDATE: ship(spark, f"file://{local}", precision=precision, setting="--candidate")}
        thresholds.check(models[CANDIDATE].signature.class_names, setting="--thresholds")
        datasets = [provenance["data"], *provenance["data"].get("additions", ())]
        trained_on = {CANDIDATE: [dataset["fingerprint"] for dataset in datasets]}
        if before.current:
            models[CURRENT] = ship(spark, home.version(before.current), precision=precision, setting="--registry")
            trained_on[CURRENT] = home.record(before.current)["trained_on"]
            _check_comparable(models, candidate, before.current)
        on_holdout = judge_on_holdout(spark, holdout, recipe, models, trained_on=set(chain(*trained_on.values())))
        _tell_holdout(on_holdout)
        on_replay = None
        if replay and not before.current:
            print("replay: left out, since there is no current version yet to compare with", file=sys.stderr)
        elif replay:
            on_replay = compare_on_replay(
                spark,
                qualify(spark, "--replay", replay),
                models,
                days=replay_days,
                thresholds=thresholds,
                image_column=image_column,
                tensor_column=tensor_column,
            )
            _tell_replay(on_replay)
        compared = {
            "holdout": on_holdout.to_json(),
            "replay": on_replay and on_replay.to_json(),
        }
        record = {
            "id": uuid4().hex,
            "promoted": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "candidate": candidate,
            "trained_on": trained_on[CANDIDATE],
            "quantized_from": provenance.get("quantization", {}).get("of_model"),
            "compared_with": before.current,
            "precision": {model: shipped.precision for model, shipped in models.items()},
            "limits": {"max_drop": max_drop, "min_agreement": min_agreement, "replay_days": replay_days},
            "code": code_version(),
            **compared,
        }
        worse = _worse(on_holdout, on_replay, max_drop, min_agreement)
        after = before if worse else home.promote(local, record, compared_with=before)
    summary = {
        "promoted": not worse,
        "registry": registry,
        **asdict(after),
        **compared,
        "seconds": round(time.time() - started, 1),
    }
    if worse:
        return summary | {"not_done": f"not promoted: {'; '.join(worse)}"}
    print(f"promote: {after.current} is current, {after.previous or 'nothing'} previous", file=sys.stderr)
    return summary | (_log_standing(home, tracking) if tracking else {})


def roll_back(registry: str, *, tracking: Tracking | None = None) -> dict[str, Any]:
    """Make the previous version of a registry current; the current one becomes the previous.

    Args:
        registry: path or URI.
        tracking: where the registered model's aliases are set anew.

    Returns:
        the summary: `registry`, `current` and `previous`; `mlflow` where `tracking` is given, and `not_done`, a
        sentence, where that failed.

    Raises:
        UserError: no registry, no previous version, or a damaged one.
    """
    if tracking and not tracking.registered_model:
        raise UserError("--registered-model", "is missing, and its aliases are to be set", "give its name")
    home = Registry(full_uri(registry), setting="REGISTRY")
    after = home.roll_back()
    print(f"rollback: {after.current} is current, {after.previous} previous", file=sys.stderr)
    summary = {"registry": home.uri, **asdict(after)}
    return summary | (_log_standing(home, tracking) if tracking else {})


def log(directory: str, tracking: Tracking) -> dict[str, Any]:
    """Log a model directory's training, or how a registry's versions were promoted, that are not logged yet.

    Args:
        directory: path or URI of either.
        tracking: where.

    Returns:
        the summary: `directory`; `mlflow`, and `not_done`, a sentence, where that failed.

    Raises:
        UserError: neither of both, or a server that does not take runs.
    """
    tracking.check()
    uri = full_uri(directory)
    home = Registry(uri, setting="DIR")
    if home.exists():
        home.current()
        logged = _log_standing(home, tracking)
    else:
        logged = tracking.attempt(lambda: tracking.log_training(uri), uri)
    return {"directory": uri, **logged}


def _log_standing(home: Registry, tracking: Tracking) -> dict[str, Any]:
    def promoted(name: str | None) -> tuple[Version, Mapping[str, Any]] | None:
        return (Version(name.partition("-")[2], home.version(name)), home.record(name)) if name else None

    standing = {alias: promoted(name) for alias, name in asdict(home.standing()).items()}
    return tracking.attempt(lambda: tracking.log_promotions(standing), home.uri)


def _check(max_drop: float, min_agreement: float, replay_days: float) -> None:
    if not 0 <= max_drop < 1:
        raise UserError("--max-drop", f"{max_drop:g}, expected 0 or more, less than 1", "0 is usual")
    if not 0 <= min_agreement <= 1:
        raise UserError("--min-agreement", f"{min_agreement:g}, expected 0 to 1", "0.9 is usual")
    if not replay_days > 0:
        raise UserError("--replay-days", f"{replay_days:g}, expected more than 0", "7 is usual")


def _check_comparable(models: Mapping[str, ShippedModel], candidate: str, current: str) -> None:
    if models[CANDIDATE].id == models[CURRENT].id:
        raise UserError(
            "--candidate", f"{candidate} is the current version already, {current}", "nothing is to be done"
        )
    ours, theirs = models[CANDIDATE].signature, models[CURRENT].signature
    own_registry = "give it a registry of its own"
    if (ours.task, ours.class_names) != (theirs.task, theirs.class_names):
        told, known = (f"{model.task} of {', '.join(model.class_names)}" for model in (ours, theirs))
        raise UserError("--candidate", f"it answers {told}, and the current version {known}", own_registry)
    if type(ours.preprocessing) is not type(theirs.preprocessing):
        raise UserError("--candidate", "of it and the current version one reads images and one tensors", own_registry)


def _worse(on_holdout: OnHoldout, on_replay: OnReplay | None, max_drop: float, min_agreement: float) -> list[str]:
    """Everything that is worse than allowed, in words."""
    worse = []
    if on_holdout.drop > max_drop:
        ours, theirs = on_holdout.value(CANDIDATE), on_holdout.value(CURRENT)
        told = f"its {on_holdout.metric} on the holdout is {ours:.4f}, and the current version's {theirs:.4f}"
        worse.append(f"{told}, a drop of more than {max_drop:g}")
    if on_holdout.lost:
        worse.append(f"it cannot read {on_holdout.lost} rows of the holdout that the current version reads")
    if on_replay and on_replay.lost:
        told = f"it cannot read {on_replay.lost} rows of the replay that the current version reads"
        worse.append(f"{told}, the first {on_replay.first_lost}")
    if on_replay and on_replay.agreement < min_agreement:
        told = f"its decisions agree on {on_replay.agreement:.4f} of the replay"
        worse.append(f"{told}, which is less than {min_agreement:g}")
    return worse


def _tell_holdout(found: OnHoldout) -> None:
    told = ", ".join(f"{model} {found.value(model):.4f}" for model in found.metrics)
    print(f"holdout: {found.rows} rows, {found.metric}: {told}", file=sys.stderr, flush=True)


def _tell_replay(found: OnReplay) -> None:
    lines = [f"replay: {found.read} of {found.rows} rows read by both, decisions agree on {found.agreement:.4f}"]
    width = max(map(len, found.classes))
    lines += [f"  {'':<{width}}  current  candidate   agree"]
    lines += [
        f"  {name:<{width}}  {shares.current:>7.4f}  {shares.candidate:>9.4f}  {shares.agreement:>6.4f}"
        for name, shares in found.classes.items()
    ]
    print("\n".join(lines), file=sys.stderr, flush=True)
