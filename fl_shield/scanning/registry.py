"""All scanners by name. Each has `conf/scanner/NAME.yaml` with the same `_target_`."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from fl_shield.errors import ConfigurationError, unknown

SCANNERS: dict[str, str] = {
    "meta_shield": "fl_shield.scanning.meta_shield:MetaShieldSamples",
    "mbds": "fl_shield.scanning.mbds:Mbds",
    "strip": "fl_shield.scanning.strip:Strip",
    "spectral_signatures": "fl_shield.scanning.spectral:SpectralSignatures",
    "activation_clustering": "fl_shield.scanning.activation_clustering:ActivationClustering",
    "meta_shield_model": "fl_shield.scanning.models.meta_shield:MetaShieldModels",
    "mntd": "fl_shield.scanning.models.mntd:Mntd",
    "neural_cleanse": "fl_shield.scanning.models.neural_cleanse:NeuralCleanse",
    "dl_tnd": "fl_shield.scanning.models.dl_tnd:DataLimitedTnd",
    "df_tnd": "fl_shield.scanning.models.df_tnd:DataFreeTnd",
}
"""Name to `module:class`; a module is imported when its scanner is first asked for."""


def build_scanner(name: str, **settings: Any) -> Any:
    """Return a new scanner, a `SampleScanner` or a `ModelScanner`.

    Args:
        name: One of `SCANNERS`.
        **settings: The scanner's own.

    Raises:
        ConfigurationError: if there is no such scanner, or it has no such setting.
    """
    if name not in SCANNERS:
        raise ConfigurationError(unknown("scanner", name, SCANNERS))
    module, _, attribute = SCANNERS[name].partition(":")
    try:
        return getattr(import_module(module), attribute)(**settings)
    except TypeError as error:
        raise ConfigurationError(f"The scanner {name} refuses its settings: {error}.") from error
