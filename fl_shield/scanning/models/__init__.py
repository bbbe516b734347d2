"""Scanners of whole models: trigger synthesis, model diagnosis, meta neural analysis."""
