"""Data: loaders that return a `Task`, and partitions that deal its training samples to clients."""
