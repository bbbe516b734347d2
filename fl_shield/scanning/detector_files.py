"""The two files of a scanner's detector: weights, and the card that they are checked against."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load as load_arrays
from safetensors.numpy import save as save_arrays

from fl_shield.detector.features import FeatureSpec
from fl_shield.errors import ConfigurationError, StateError, expected

Arrays = Mapping[str, NDArray[np.float64]]

Detector = TypeVar("Detector")


@dataclass(frozen=True)
class DetectorFiles:
    """How a kind of detector is kept in a folder.

    Attributes:
        what: What it is a detector of, for messages.
        format: Name of the format.
        version: Version that is written and read.
        weights: Name of the file of arrays.
        card: Name of the card.
    """

    what: str
    format: str
    version: int
    weights: str
    card: str

    def write(
        self, folder: str | Path, arrays: Arrays, spec: FeatureSpec, facts: Mapping[str, Any]
    ) -> Path:
        """Write both files and return the folder.

        Args:
            folder: Made if it is not there.
            arrays: What was learned.
            spec: Columns and their units, which the card holds.
            facts: What else the card says, JSON-ready.
        """
        target = Path(folder)
        target.mkdir(parents=True, exist_ok=True)
        # One entry: several come in any order, and the same weights would have other digests.
        content = save_arrays(dict(arrays), {"format": self.format})
        card = {
            **facts,
            "format": self.format,
            "version": self.version,
            "sha256": hashlib.sha256(content).hexdigest(),
            "columns": list(spec.names),
            "units": list(spec.units),
        }
        (target / self.weights).write_bytes(content)
        text = json.dumps(card, indent=1, allow_nan=False) + "\n"
        (target / self.card).write_text(text, encoding="utf-8")
        return target

    def read(
        self,
        folder: str | Path,
        build: Callable[[Arrays, FeatureSpec, dict[str, Any]], Detector],
    ) -> Detector:
        """Return what `build` makes of arrays, columns and card.

        Raises:
            ConfigurationError: if the folder holds no such files.
            StateError: if a file is damaged, of another version, or not the card's.
        """
        source = Path(folder)
        if not (source / self.card).is_file():
            raise ConfigurationError(
                expected("detector", f"a folder with {self.card} and {self.weights}", str(source))
            )
        try:
            card: Any = json.loads((source / self.card).read_bytes())
            content = (source / self.weights).read_bytes()
            self._check(card, content, source)
            arrays = {
                name: np.asarray(array, dtype=np.float64)
                for name, array in load_arrays(content).items()
            }
            spec = FeatureSpec(tuple(map(str, card["columns"])), tuple(map(float, card["units"])))
            return build(arrays, spec, card)
        except (OSError, ValueError, KeyError, TypeError, IndexError, SafetensorError) as error:
            if isinstance(error, StateError):
                raise
            raise StateError(
                f"The detector in {source} is damaged ({error!r}). Copy it anew."
            ) from error

    def _check(self, card: Mapping[str, Any], content: bytes, source: Path) -> None:
        if card.get("format") != self.format:
            raise StateError(f"{source / self.card} is no detector of {self.what}.")
        if card.get("version") != self.version:
            raise StateError(
                f"{source / self.card} has version {card.get('version')}; "
                f"this fl_shield reads {self.version}."
            )
        if hashlib.sha256(content).hexdigest() != card["sha256"]:
            raise StateError(
                f"{source / self.weights} does not belong to {self.card}: its SHA-256 is not that "
                "of the card. Copy both files of a detector together."
            )
