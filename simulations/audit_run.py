"""`fl-shield audit RUN`: the final global model of each arm of a simulation, judged as a model.

The defender of the simulation judges: it holds the run's probes, which no client has, and knows the
architecture. What is found is printed and written into the run folder as `audit.json`.
"""

from __future__ import annotations

import argparse
import json
import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fl_shield.errors import ConfigurationError

if TYPE_CHECKING:
    from torch import nn

    from fl_shield.simulations.federation import Federation

FOUND = "audit.json"

EPOCHS = 20
"""Passes of a shadow model over the probes, otherwise trained as clients are."""


def is_run_folder(path: Path) -> bool:
    """Return whether a path is the folder of a simulation."""
    return (path / "arms").is_dir() and (path / "config.yaml").is_file()


def audit_run(folder: Path, options: argparse.Namespace) -> tuple[dict[str, Any], int]:
    """Judge the final models of a run; return the report and the number of suspected ones.

    Raises:
        FlShieldError: in one sentence, if no arm has a checkpoint, or an option is wrong.
    """
    from fl_shield.scanning.protocol import Held
    from fl_shield.simulations.audit_models import judge_named
    from fl_shield.simulations.federation import build, build_federation
    from fl_shield.simulations.simulate import resume_settings

    for name in ("model", "model_file", "weights", "pad_id"):
        if getattr(options, name) is not None:
            raise ConfigurationError(
                f"--{name.replace('_', '-')} does not go with a run folder, which says what its "
                "models are."
            )
    federation = build_federation(resume_settings(folder))
    models = {
        arm: _final(federation, folder / "arms" / arm / "checkpoint") for arm in _arms(folder)
    }
    found = {arm: model for arm, model in models.items() if model is not None}
    if not found:
        raise ConfigurationError(
            f"No arm of {folder} has a checkpoint yet: let the run finish a round first."
        )
    settings = federation.settings
    held = Held(
        clean=federation.probe_set(),
        spec=federation.task.spec,
        architecture=build(settings.config["model"], "model"),
        training=replace(federation.training, epochs=EPOCHS),
        final_layer=options.final_layer,
        seed=settings.seed if options.seed is None else options.seed,
    )
    report, suspects = judge_named(list(found), list(found.values()), held, options)
    report["source"] = str(folder)
    draft = folder / f".{FOUND}.part"
    draft.write_text(json.dumps(report, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    os.replace(draft, folder / FOUND)
    return report, suspects


def _arms(folder: Path) -> list[str]:
    return sorted(entry.name for entry in (folder / "arms").iterdir() if entry.is_dir())


def _final(federation: Federation, folder: Path) -> nn.Module | None:
    """Return the global model of the last good checkpoint, None if there is none."""
    from fl_shield.strategies.checkpoint import read_checkpoint

    checkpoint = read_checkpoint(folder)
    if checkpoint is None:
        return None
    model = federation.new_model()
    model.load_state_dict(checkpoint.arrays.to_torch_state_dict())
    return model.eval()
