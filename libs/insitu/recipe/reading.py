"""A recipe out of its YAML file and the overrides, every mistake explained."""

from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError

from insitu.errors import UserError
from insitu.recipe.schema import Recipe


def load(path: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read and validate a recipe file.

    Args:
        path: the YAML file.
        overrides: `section.key=value` each, the value in YAML; they replace the file's.

    Raises:
        UserError: naming every wrong key with its value, and the nearest known key.
    """
    try:
        tree = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(
            "--recipe", f"cannot read {path} ({error.strerror})", "name a file, such as one of conf/recipes/"
        ) from None
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        raise UserError(
            "--recipe", f"{path} is not YAML ({' '.join(str(error).split())})", "mend the line it names"
        ) from None
    if not isinstance(tree, dict):
        raise UserError("--recipe", f"{path} holds no sections", "start from one of conf/recipes/")
    for override in overrides:
        _apply(tree, override)
    return parse(tree)


def parse(tree: dict[str, Any]) -> Recipe:
    """Validate a recipe given as nested dictionaries; raises `UserError` as `load` does."""
    try:
        return Recipe.model_validate(tree)
    except ValidationError as error:
        mistakes = [_explain(tuple(item["loc"]), item) for item in error.errors()]
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


_DECAY = ("training", "schedule", "decay")


def _explain(loc: tuple[int | str, ...], item: Any) -> tuple[str, str, str]:
    if loc[:3] == _DECAY:
        loc = loc[:3] + loc[4:]  # pydantic puts the decay's kind, which is no key, into the path
    path = list(map(str, loc))
    setting = ".".join(path) or "recipe"
    if item["type"] == "extra_forbidden":
        known = _known_keys(path[:-1])
        near = get_close_matches(path[-1], known, n=1, cutoff=0.4)
        mend = f"did you mean {near[0]}?" if near else f"the keys here are {', '.join(known)}"
        return setting, "unknown key", mend
    if item["type"] == "missing":
        return setting, "is missing", "set it in the recipe or with --set"
    if item["type"] == "value_error":
        return setting, str(item["ctx"]["error"]), "mend the recipe or the --set"
    return setting, f"{item['msg'][0].lower() + item['msg'][1:]}, got {item['input']!r}", "mend the recipe or the --set"


def _known_keys(path: Iterable[str]) -> list[str]:
    """The keys of the section that `path` names, those of every decay where it is a decay."""
    sections: list[type[BaseModel]] = [Recipe]
    for name in path:
        annotations = [cls.model_fields[name].annotation for cls in sections if name in cls.model_fields]
        parts = [part for a in annotations for part in (get_args(a) or (a,))]
        sections = [p for p in parts if isinstance(p, type) and issubclass(p, BaseModel)]
    return sorted({key for cls in sections for key in cls.model_fields})
