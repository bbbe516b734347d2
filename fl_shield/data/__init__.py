"""Data sets as tasks, and their partition over clients."""
