"""Recommendation: ratings → an ALS model, its directory, and lists of the best items for each user.

The names load what they need when they are first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from insitu.recommend.als import ALS
    from insitu.recommend.top import top_items

__all__ = ["ALS", "top_items"]

_HOMES = {"ALS": "insitu.recommend.als", "top_items": "insitu.recommend.top"}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'insitu.recommend' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
