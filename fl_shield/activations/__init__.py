"""From weights to logits and penultimate activations."""
