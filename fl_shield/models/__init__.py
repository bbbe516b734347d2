"""Classifiers for the simulations, one file each, built from the facts of a task.

Every model is called with its `TaskSpec` and keyword settings, takes images in [0, 1] or token ids,
and returns logits; normalisation and attention masks happen inside.
"""
