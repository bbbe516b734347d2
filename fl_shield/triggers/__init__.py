"""Triggers: small changes of inputs that a backdoored model obeys."""
