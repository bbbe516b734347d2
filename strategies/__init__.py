"""Flower strategies: the shield, and what it is compared with."""

from fl_shield.strategies.meta_shield import MetaShield, shield

__all__ = ["MetaShield", "shield"]
