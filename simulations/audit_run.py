"""`fl-shield audit RUN`: the final global model of each arm of a simulation, judged.

The defender of the simulation judges: it holds the run's probes, which no client has, and knows the
architecture. Scanners of whole models say whether a model has a backdoor; scanners of inputs are
shown clean and triggered test inputs of each model. What is found goes into the run folder
(`fl_shield.simulations.final_models`), from where the report takes it.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fl_shield.errors import ConfigurationError, StateError, expected
from fl_shield.simulations.audit_models import (
    Choices,
    choices_of,
    default_scanner,
    findings_on,
    judge,
    print_judgements,
)
from fl_shield.simulations.final_models import FinalModel, FinalModels

if TYPE_CHECKING:
    from torch import nn

    from fl_shield.scanning.model_audit import ModelJudgement
    from fl_shield.scanning.protocol import Held
    from fl_shield.simulations.federation import Federation

EPOCHS = 20
"""Passes of a shadow model over the probes, otherwise trained as clients are."""

OF_INPUTS = "meta_shield"
"""The default scanner of inputs: it did best in `docs/results/papers.md`, on images and texts."""

NOT_WITH_RUNS = ("model", "model_file", "weights", "pad_id")
"""Options that a run folder answers itself."""


def is_run_folder(path: Path) -> bool:
    """Return whether a path is the folder of a simulation."""
    return (path / "arms").is_dir() and (path / "config.yaml").is_file()


def audit_run(folder: Path, options: argparse.Namespace) -> tuple[dict[str, Any], int]:
    """Judge the final models of a run; return the report and the number of suspected ones.

    Raises:
        FlShieldError: in one sentence, if no arm has a checkpoint, or an option is wrong.
    """
    for name in NOT_WITH_RUNS:
        if getattr(options, name) is not None:
            raise ConfigurationError(
                f"--{name.replace('_', '-')} does not go with a run folder, which says what its "
                "models are."
            )
    found = scan_run(folder, choices_of(options), show=options.json != "-")
    return found.record(), len(found.suspects)


def scan_run(folder: Path, choices: Choices, *, show: bool = True) -> FinalModels:
    """Judge the final models of a run, write `audit.json` into it, and return what it says.

    Args:
        folder: The run folder; unfinished arms are judged by their last checkpoint.
        choices: Scanners of both kinds, shadows, rate of false alarms and seed.
        show: Whether the findings are printed.

    Raises:
        FlShieldError: in one sentence, if no arm has a checkpoint, or a scanner cannot judge.
    """
    from fl_shield.scanning.contamination import words_of
    from fl_shield.scanning.protocol import Held
    from fl_shield.simulations.federation import build, build_federation
    from fl_shield.simulations.final_inputs import judge_inputs
    from fl_shield.simulations.simulate import resume_settings

    federation = build_federation(resume_settings(folder))
    models = _final_models(federation, folder)
    settings = federation.settings
    held = Held(
        clean=federation.probe_set(),
        spec=federation.task.spec,
        architecture=build(settings.config["model"], "model"),
        training=replace(federation.training, epochs=EPOCHS),
        final_layer=choices.final_layer,
        word_tokens=words_of(federation.task),
        seed=settings.seed if choices.seed is None else choices.seed,
    )
    of_models, of_inputs = _by_level(choices.scanners or _defaults(held))
    # Inputs first: they take seconds, and say what is missing before shadows are trained.
    inputs = [
        judge_inputs(
            federation, replace(held, model=model), of_inputs, choices.false_alarms, number
        )
        for number, model in models.values()
    ]
    judgements: list[ModelJudgement] = []
    verdicts: list[bool | None] = [None] * len(models)
    if of_models:
        judgements, flags = judge([m for _, m in models.values()], held, of_models, choices)
        verdicts = [*flags]
        if show:
            print_judgements(list(models), judgements, flags)
    found = FinalModels(
        clean_samples=len(held.clean),
        shadows=choices.shadows_for(held, of_models) if of_models else 0,
        false_alarms=choices.false_alarms,
        seed=held.seed,
        models=tuple(
            FinalModel(name, number, verdicts[row], findings_on(row, judgements), inputs[row])
            for row, (name, (number, _)) in enumerate(models.items())
        ),
    )
    file = found.write(folder)
    if show:
        _print_inputs(found, file)
    return found


def _final_models(federation: Federation, folder: Path) -> dict[str, tuple[int, nn.Module]]:
    """Return round and model of the last good checkpoint of each arm that has one.

    Raises:
        ConfigurationError: if no arm has one.
        StateError: if a checkpoint is of another model.
    """
    from fl_shield.simulations.arms import ARMS
    from fl_shield.strategies.checkpoint import read_checkpoint

    names = [entry.name for entry in (folder / "arms").iterdir() if entry.is_dir()]
    known = list(ARMS)
    names.sort(key=lambda name: (known.index(name) if name in known else len(known), name))
    found = {}
    for name in names:
        checkpoint = read_checkpoint(folder / "arms" / name / "checkpoint")
        if checkpoint is None:
            continue
        model = federation.new_model()
        try:
            model.load_state_dict(checkpoint.arrays.to_torch_state_dict())
        except RuntimeError as error:
            raise StateError(
                f"The checkpoint in {folder / 'arms' / name} is not of the model that config.yaml "
                f"names: {str(error).strip().splitlines()[-1].strip()}"
            ) from error
        found[name] = (checkpoint.round_number, model.eval())
    if not found:
        raise ConfigurationError(
            f"No arm of {folder} has a checkpoint yet: let the run finish a round first."
        )
    return found


def _defaults(held: Held) -> tuple[str, ...]:
    """Return a scanner of inputs, and of whole models where one has proved itself."""
    try:
        return (default_scanner(held), OF_INPUTS)
    except ConfigurationError:
        return (OF_INPUTS,)


def _by_level(names: Sequence[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the scanners of whole models, and those of inputs.

    Raises:
        ConfigurationError: if one is unknown, named twice, or judges training sets.
    """
    from fl_shield.scanning.registry import build_scanner

    if len(set(names)) < len(names):
        raise ConfigurationError(expected("--scanner", "different scanners", ", ".join(names)))
    levels: dict[str, list[str]] = {"model": [], "sample": []}
    for name in names:
        level = build_scanner(name).level
        if level not in levels:
            raise ConfigurationError(
                f"The scanner {name} judges a training set, which a run folder does not hold: use "
                "fl-shield filter."
            )
        levels[level].append(name)
    return tuple(levels["model"]), tuple(levels["sample"])


def _print_inputs(found: FinalModels, file: Path) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from fl_shield.simulations.wording import percent

    console = Console(width=None if sys.stdout.isatty() else 132, highlight=False)
    if any(model.inputs for model in found.models):
        table = Table()
        for heading in ("inputs of", "scanner"):
            table.add_column(heading)
        for heading in ("triggered, suspected", "clean, suspected", "AUROC"):
            table.add_column(heading, justify="right")
        for model in found.models:
            for one in model.inputs:
                table.add_row(
                    escape(model.name),
                    one.scanner,
                    "–" if one.found is None else f"{percent(one.found)} of {one.triggered}",
                    f"{percent(one.false_alarms)} of {one.clean}",
                    "–" if one.auroc is None else f"{one.auroc:.3f}",
                )
        console.print(table)
    if not any(model.scanners for model in found.models):
        console.print("No model was judged as a whole: name a scanner for that, --scanner mntd.")
    console.print(f"Findings: {file}. fl-shield report shows them.", soft_wrap=True)
