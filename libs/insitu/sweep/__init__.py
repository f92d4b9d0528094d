"""`insitu sweep`: one recipe, many settings, one table and picture.

Optuna draws the trials and keeps their states; `insitu.train` makes a model directory of each.
"""
