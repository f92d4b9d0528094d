"""The HTML report of a model directory, its plots, and what `insitu compare` draws with them."""

from insitu.report.write import write_report

__all__ = ["write_report"]
