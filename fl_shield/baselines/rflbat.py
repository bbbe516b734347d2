"""RFLBAT (Wang et al., 2022): updates on their first two principal components."""

from __future__ import annotations

import numpy as np

from fl_shield.baselines.observed import Floats, Observed
from fl_shield.baselines.protocol import finite

NUM_COMPONENTS = 2


def principal_coordinates(gram: Floats, components: int = NUM_COMPONENTS) -> Floats:
    """Return the coordinates `(clients, components)` of a PCA of the updates.

    Computed from inner products, which is the same as a PCA of the `(clients, parameters)` matrix
    up to the signs of the components.
    """
    count = gram.shape[0]
    if count < 2:
        return np.zeros((count, components))
    centring = np.eye(count) - 1.0 / count
    values, vectors = np.linalg.eigh(centring @ gram @ centring)
    top = np.argsort(values)[::-1][:components]
    coordinates = vectors[:, top] * np.sqrt(np.clip(values[top], 0.0, None))
    missing = components - coordinates.shape[1]
    return np.asarray(np.pad(coordinates, ((0, 0), (0, max(missing, 0)))))


def distance_sums(coordinates: Floats) -> Floats:
    """Return for each client the sum of its distances to all others, `(clients,)`."""
    differences = coordinates[:, None, :] - coordinates[None, :, :]
    return np.asarray(np.linalg.norm(differences, axis=2).sum(axis=1))


class RflbatDistance:
    """Sum of distances to all others in the plane of the first two principal components."""

    name = "rflbat"

    def score(self, observed: Observed) -> Floats:
        """Return the sums `(clients,)`."""
        return finite(distance_sums(principal_coordinates(observed.gram)))
