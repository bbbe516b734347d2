"""Attacks: what malicious clients do to their data and their model, for studies of defences."""
