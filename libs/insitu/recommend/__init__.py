"""Recommendation: alternating least squares and what is made of its factors."""
