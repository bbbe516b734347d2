"""From scores to verdicts: evidence over rounds, and a policy."""
