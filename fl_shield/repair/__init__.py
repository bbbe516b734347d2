"""Repairs of models that have a backdoor, with a few clean samples and without the trigger."""
