"""A recipe out of its YAML file and the overrides, every mistake explained."""

from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from insitu.errors import UserError
from insitu.recipe.schema import Recipe, Section

S = TypeVar("S", bound=Section)


def load(path: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """`read` a recipe for a neural network."""
    return read(path, overrides, schema=Recipe)


def parse(tree: dict[str, Any]) -> Recipe:
    """Validate a recipe for a neural network given as nested dictionaries; raises `UserError` as `read` does."""
    return _validate(tree, Recipe)


def read(path: str | Path, overrides: Sequence[str], *, schema: type[S], setting: str = "--recipe") -> S:
    """Read and validate a recipe file.

    Args:
        path: the YAML file.
        overrides: `section.key=value` each, the value in YAML; they replace the file's.
        schema: the recipe's sections and keys.
        setting: what named the file, for the error.

    Raises:
        UserError: naming every wrong key with its value, and the nearest known key.
    """
    try:
        tree = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(
            setting, f"cannot read {path} ({error.strerror})", "name a file, such as one of conf/recipes/"
        ) from None
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        raise UserError(
            setting, f"{path} is not YAML ({' '.join(str(error).split())})", "mend the line it names"
        ) from None
    if not isinstance(tree, dict):
        raise UserError(setting, f"{path} holds no sections", "start from one of conf/recipes/")
    for override in overrides:
        _apply(tree, override)
    return _validate(tree, schema)


def _validate(tree: dict[str, Any], schema: type[S]) -> S:
    try:
        return schema.model_validate(tree)
    except ValidationError as error:
        mistakes = [_explain(item, schema) for item in error.errors()]
        setting, problem, mend = mistakes[0]
        more = "".join(f" | {s}: {p}; {m}" for s, p, m in mistakes[1:])
        raise UserError(setting, problem, mend + more) from None


def _apply(tree: dict[str, Any], override: str) -> None:
    key, equals, value = override.partition("=")
    if not equals or not key:
        raise UserError("--set", f"expected section.key=value, got {override!r}", "write it as --set training.epochs=3")
    *sections, last = key.split(".")
    node: Any = tree
    for section in sections:
        if node.get(section) is None:
            node[section] = {}
        node = node[section]
        if not isinstance(node, dict):
            raise UserError("--set", f"{key}: {section} is not a section", "use a key of the recipe")
    try:
        node[last] = yaml.safe_load(value)
    except yaml.YAMLError:
        raise UserError("--set", f"{key}: {value!r} is not a YAML value", "quote it") from None


def _explain(item: ErrorDetails, schema: type[Section]) -> tuple[str, str, str]:
    keys, known = _locate(schema, list(map(str, item["loc"])))
    setting, context = ".".join(keys), item.get("ctx", {})
    if item["type"] == "extra_forbidden":
        near = get_close_matches(keys[-1], known, n=1, cutoff=0.4)
        return setting, "unknown key", f"did you mean {near[0]}?" if near else f"the keys here are {', '.join(known)}"
    if item["type"].startswith("union_tag"):
        setting += "." + context["discriminator"].strip("'")
    if item["type"] in ("missing", "union_tag_not_found"):
        return setting, "is missing", "set it in the recipe or with --set"
    if item["type"] == "union_tag_invalid":
        problem = f"expected one of {context['expected_tags']}, got {context['tag']!r}"
    elif item["type"] == "value_error":
        problem = str(context["error"])
    else:
        problem = f"{item['msg'][0].lower() + item['msg'][1:]}, got {item['input']!r}"
    return setting, problem, "mend the recipe or the --set"


def _locate(section: type[BaseModel], loc: list[str]) -> tuple[list[str], list[str]]:
    """The keys of a pydantic `loc` below `section`, and all keys of the innermost section there.

    Below a union's key pydantic puts the tag of the variant, such as `adam`, which is no key.
    """
    key, *inner = loc
    field = section.model_fields.get(key)
    if field is None or not inner:
        return loc, sorted(section.model_fields)
    parts = get_args(field.annotation) or (field.annotation,)
    sections = [part for part in parts if isinstance(part, type) and issubclass(part, BaseModel)]
    if field.discriminator is not None:
        tag, *inner = inner
        sections = [s for s in sections if tag in get_args(s.model_fields[str(field.discriminator)].annotation)]
    if not sections or not inner:
        return [key, *inner], sorted(section.model_fields)
    keys, known = _locate(sections[0], inner)
    return [key, *keys], known
