"""Handwritten digits, learned by nodes that are not all honest."""
