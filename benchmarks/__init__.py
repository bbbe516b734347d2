"""Commands that measure, and write `docs/results`."""
