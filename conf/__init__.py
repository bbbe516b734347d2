"""The Hydra tree: one folder a group, one file an option."""
