"""Recommendation: ratings → an ALS model, its directory, and lists of the best items for each user."""

from insitu.recommend.als import ALS
from insitu.recommend.top import top_items

__all__ = ["ALS", "top_items"]
