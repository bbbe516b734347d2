"""Flower apps that run federations with and without attack and defence."""
