"""Figures of merit of models and of detectors."""
