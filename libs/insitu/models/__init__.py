"""CNN topologies by name."""

from insitu.models.registry import build, check, names

__all__ = ["build", "check", "names"]
