"""Fixtures for all tests: seeds, and hypothesis without deadlines (the machines are shared)."""

import random

import numpy as np
import pytest
import torch
from hypothesis import settings

settings.register_profile("shared", deadline=None, derandomize=True)
settings.load_profile("shared")


@pytest.fixture(autouse=True)
def _seeded() -> None:
    """Every test starts from the same random state."""
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)
