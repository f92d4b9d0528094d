"""`insitu show DIR`: a model directory as a person reads it."""

import json
from typing import Any

import yaml

from insitu import artifact
from insitu.cluster.filesystem import open_filesystem


def show(directory: str) -> dict[str, Any]:
    """Verify a model directory, print it, and return its summary.

    Raises:
        UserError: no model directory, or a file that is not what was written.
    """
    if artifact.holds(directory, artifact.ALS, setting="DIR"):
        return _show_als(directory)
    with artifact.verified(directory, setting="DIR") as local:
        recipe = yaml.safe_load((local / artifact.RECIPE).read_text())
        signature = artifact.Signature.from_json(artifact.read_json(local / artifact.SIGNATURE))
        metrics = artifact.read_json(local / artifact.METRICS)
        provenance = artifact.read_json(local / artifact.PROVENANCE)
        history = [json.loads(line) for line in (local / artifact.HISTORY).read_text().splitlines()]
        quantised = (local / artifact.QUANTIZATION).is_file()
    for line in _lines(recipe, signature, metrics, provenance, history, quantised=quantised):
        print(line)
    return {"directory": directory, "model": recipe["model"]["name"], "task": signature.task, "metrics": metrics}


def _show_als(directory: str) -> dict[str, Any]:
    """The same for a factorisation, whose tables are verified where they are."""
    artifact.verify(directory, part=artifact.ALS, setting="DIR")
    file_system, path = open_filesystem(directory.rstrip("/"))
    names = (artifact.RECIPE, artifact.METRICS, artifact.PROVENANCE)
    recipe, metrics, provenance = (yaml.safe_load(file_system.cat_file(f"{path}/{name}")) for name in names)
    model, data, run = recipe["model"], provenance["data"], provenance["run"]
    rows, kind = data["rows"], "implicit" if model["implicit"] else "explicit"
    for line in (
        f"model     ALS, rank {model['rank']}, {kind}, {run['users']} users, {run['items']} items",
        f"data      {data['uri']}, {rows['train']} training and {rows['held_out']} held-out ratings",
        f"training  {model['iterations']} iterations in {run['fit_seconds']} s, {model['solver']}",
        _made(provenance),
        "",
        *(f"{name:<16} {_number(value)}" for name, value in metrics.items()),
    ):
        print(line)
    return {"directory": directory, "model": "als", "task": kind, "metrics": metrics}


def _lines(
    recipe: dict[str, Any],
    signature: artifact.Signature,
    metrics: dict[str, Any],
    provenance: dict[str, Any],
    history: list[dict[str, Any]],
    *,
    quantised: bool,
) -> list[str]:
    training, data, run = recipe["training"], provenance["data"], provenance["run"]
    batch = f"{run['workers']} workers, {training['global_batch']} images a step, {training['optimizer']['name']}"
    return [
        f"model     {recipe['model']['name']}, {signature.task}, {len(signature.class_names)} classes",
        *(f"input     {t.name} {t.dtype} {_shape(t)} {t.layout}" for t in signature.inputs),
        *(f"output    {t.name} {t.dtype} {_shape(t)} {t.layout}" for t in signature.outputs),
        f"data      {data['uri']}, {data['rows']['train']} training and {data['rows']['validation']} validation rows",
        *(f"addition  {each['uri']}, {each['rows']} of the training rows" for each in data.get("additions", ())),
        f"training  {run['epochs']} epochs in {run['seconds']} s, {batch}, {run['precision']}, {training['engine']}",
        _made(provenance),
        *(f"parent    {parent}" for parent in [provenance["parent_model"]] if parent),
        *([_quantised(provenance["quantization"])] if quantised else []),
        "",
        f"{'epoch':>9}  {'loss':>8}  {'validation loss':>15}  {'images/s':>8}",
        *(
            f"{line['epoch'] + 1:>9}  {line['loss']:>8.4f}  {line['validation']['loss']:>15.4f}  "
            f"{line['images_per_second']:>8.1f}"
            for line in history
        ),
        "",
        *(f"{name:<16} {_number(value)}" for name, value in metrics.items() if name != "auc"),
        *(f"auc {name:<24} {_number(value)}" for name, value in metrics["auc"].items()),
    ]


def _made(provenance: dict[str, Any]) -> str:
    code = provenance["code"]
    return f"made      {provenance['started']} by insitu {code['insitu']} ({code['commit']})"


def _quantised(facts: dict[str, Any]) -> str:
    metric = facts["metric"]
    found = (f"{form} {_number(measured['metrics'][metric])}" for form, measured in facts["found"].items())
    return f"quantised {', '.join(found)} {metric}, see {artifact.QUANTIZATION}"


def _shape(tensor: artifact.Tensor) -> str:
    return "x".join("B" if size is None else str(size) for size in tensor.shape)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"
