"""`fl-shield audit --clean …`: whole models, judged with the clean samples of the defender."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fl_shield.errors import ConfigurationError, expected, raise_all
from fl_shield.simulations.final_models import ModelFinding

if TYPE_CHECKING:
    from torch import nn

    from fl_shield.scanning.model_audit import ModelJudgement
    from fl_shield.scanning.protocol import Held
    from fl_shield.simulations.filter_inputs import NamedSamples

DEFAULT_SHADOWS = 19
DEFAULT_RATE = 0.05
DEFAULT_SCANNER = "meta_shield_model"
"""As many as a rate of false alarms of 5 % takes."""

ONLY_HERE = ("weights", "scanner", "shadows", "false_alarms", "seed", "pad_id")
"""Options that mean nothing without `--clean`."""

NOT_HERE = ("probes", "threshold", "evidence_threshold", "device")
"""Options of captures that mean nothing to a whole model."""


def add_model_options(audit: argparse.ArgumentParser) -> None:
    """Add the options of whole models."""
    group = audit.add_argument_group("whole models")
    group.add_argument("--clean", metavar="PATH", help="clean samples: judge a whole model")
    group.add_argument(
        "--weights", metavar="FILE", nargs="+",
        help="safetensors files of --model's weights, each a model to judge",
    )  # fmt: skip
    group.add_argument(
        "--scanner", metavar="NAME", nargs="+",
        help="meta_shield_model (default), neural_cleanse, mntd, dl_tnd, df_tnd; several "
        "are combined. With a run folder also meta_shield (default) and strip, for its inputs",
    )  # fmt: skip
    group.add_argument(
        "--shadows", type=int, metavar="N",
        help=f"clean models to train for the thresholds (default: {DEFAULT_SHADOWS}; for "
        f"{DEFAULT_SCANNER} alone and with --model-file 0, the published thresholds)",
    )  # fmt: skip
    group.add_argument(
        "--false-alarms", type=float, metavar="X",
        help="share of clean models that may be suspected (default: 0.05)",
    )  # fmt: skip
    group.add_argument("--pad-id", type=int, metavar="ID", help="padding token of texts")
    group.add_argument("--seed", type=int, metavar="N", help="seed of shadows and searches")


def refuse_model_options(options: argparse.Namespace) -> None:
    """Refuse what only a whole model is judged with.

    Raises:
        ConfigurationError: naming the option, or the run folder that is not there.
    """
    for name in ONLY_HERE:
        if getattr(options, name) is not None:
            if options.source is not None and not Path(options.source).expanduser().exists():
                known = "a run folder, a folder of captures or an audit log"
                raise ConfigurationError(expected("audit", known, str(options.source)))
            raise ConfigurationError(
                f"--{name.replace('_', '-')} goes with --clean PATH or a run folder: "
                "it judges whole models."
            )


def audit_models(options: argparse.Namespace) -> tuple[dict[str, Any], int]:
    """Judge whole models; return the report and the number of suspected models.

    Raises:
        FlShieldError: in one sentence, if a file or an option is wrong.
    """
    from fl_shield.simulations.filter_inputs import read_samples

    if options.source is not None:
        raise ConfigurationError(
            f"--clean judges a whole model, and {options.source} is a capture or a log. "
            "Give one or the other."
        )
    clean = read_samples("--clean", options.clean)
    names, models = _models(options, clean)
    held = _held(options, clean, models[0])
    choices = choices_of(options)
    scanners = choices.scanners or (default_scanner(held),)
    judgements, suspected = judge(models, held, scanners, choices)
    if options.json != "-":
        print_judgements(names, judgements, suspected)
    report = {
        "source": str(options.clean),
        "clean_samples": len(held.clean),
        "shadows": choices.shadows_for(held, scanners),
        "false_alarms": choices.false_alarms,
        "suspects": [name for name, flag in zip(names, suspected, strict=True) if flag],
        "models": [
            {
                "name": name,
                "suspected": suspected[row],
                "scanners": [asdict(finding) for finding in findings_on(row, judgements)],
            }
            for row, name in enumerate(names)
        ],
    }
    return report, sum(suspected)


def findings_on(row: int, judgements: Sequence[ModelJudgement]) -> tuple[ModelFinding, ...]:
    """Return what each scanner says of the model in a row, as it is written down."""
    return tuple(
        ModelFinding(
            scanner=judgement.scanner,
            score=float(judgement.scores[row]),
            threshold=float(judgement.threshold),
            calibrated=judgement.calibrated,
            suspected=judgement.suspected()[row],
        )
        for judgement in judgements
    )


@dataclass(frozen=True, kw_only=True)
class Choices:
    """What a person may choose of an audit of whole models.

    Attributes:
        scanners: Names of the scanners, none for the default.
        shadows: Clean models to train for the thresholds, None for the default.
        false_alarms: Share of clean models that may be suspected.
        seed: Seed of shadows and searches, None for the default.
        final_layer: Name of the final layer, None to find it.

    Raises:
        ConfigurationError: if a number is out of range.
    """

    scanners: tuple[str, ...] = ()
    shadows: int | None = None
    false_alarms: float = DEFAULT_RATE
    seed: int | None = None
    final_layer: str | None = None

    def __post_init__(self) -> None:
        """Check the numbers."""
        problems = []
        if self.shadows is not None and self.shadows < 0:
            problems.append(expected("--shadows", "0 or more", self.shadows))
        if not 0.0 < self.false_alarms < 1.0:
            problems.append(expected("--false-alarms", "between 0 and 1", self.false_alarms))
        raise_all(problems)

    def shadows_for(self, held: Held, scanners: Sequence[str]) -> int:
        """Return the number of shadow models: none where there is no architecture to train.

        The default scanner has a threshold for the default rate, learned on data sets that it had
        not seen; it keeps to the rate better than one from shadows (`docs/results/models.md`).
        """
        if self.shadows is not None:
            return self.shadows
        is_settled = list(scanners) == [DEFAULT_SCANNER] and self.false_alarms == DEFAULT_RATE
        return 0 if held.architecture is None or is_settled else DEFAULT_SHADOWS


def choices_of(options: argparse.Namespace) -> Choices:
    """Return what was chosen on the command line.

    Raises:
        ConfigurationError: if an option does not go with whole models, or a number is wrong.
    """
    for name in NOT_HERE:
        if getattr(options, name) is not None:
            raise ConfigurationError(
                f"--{name.replace('_', '-')} does not go with the audit of a whole model."
            )
    return Choices(
        scanners=tuple(options.scanner or ()),
        shadows=options.shadows,
        false_alarms=DEFAULT_RATE if options.false_alarms is None else options.false_alarms,
        seed=options.seed,
        final_layer=options.final_layer,
    )


def judge(
    models: Sequence[nn.Module], held: Held, scanners: Sequence[str], choices: Choices
) -> tuple[list[ModelJudgement], list[bool]]:
    """Return what each scanner says of the models, and for each model whether it is suspected.

    Args:
        models: The suspects.
        held: What the defender holds.
        scanners: Names of scanners of the level `model`.
        choices: Shadows and rate of false alarms.

    Raises:
        FlShieldError: in one sentence, if a scanner cannot judge.
    """
    from fl_shield.scanning.model_audit import judge_models

    judgements = judge_models(
        models,
        held,
        scanners,
        shadows=choices.shadows_for(held, scanners),
        false_alarms=choices.false_alarms,
    )
    suspected = judgements[-1].suspected()
    if len(judgements) > 1 and judgements[-1].scanner != "ensemble":
        # Published thresholds have no common unit: each scanner speaks for itself.
        suspected = [any(flags) for flags in zip(*(j.suspected() for j in judgements), strict=True)]
    return judgements, suspected


def default_scanner(held: Held) -> str:
    """Return the scanner that did best in `docs/results/models.md`, where it can judge.

    Raises:
        ConfigurationError: for texts, where none has proved itself.
    """
    if held.spec.modality == "image":
        return DEFAULT_SCANNER
    raise ConfigurationError(
        "The default scanner judges models of images. For texts name one: --scanner mntd."
    )


def _models(options: argparse.Namespace, clean: NamedSamples) -> tuple[list[str], list[nn.Module]]:
    from fl_shield.probes.probe_set import ProbeSet
    from fl_shield.simulations.audit_inputs import import_model, read_model
    from fl_shield.simulations.filter_inputs import load_weights

    if (options.model is None) == (options.model_file is None):
        raise ConfigurationError(
            "Expected either --model module:factory or --model-file FILE, got "
            f"{'neither' if options.model is None else 'both'}."
        )
    if options.model_file is not None:
        if options.weights:
            raise ConfigurationError(
                "--weights goes with --model: a file of torch.export has its weights in it."
            )
        file = Path(options.model_file).expanduser()
        return [file.name], [read_model(file, ProbeSet(clean.inputs, clean.labels))]
    if not options.weights:
        return [options.model], [import_model(options.model).eval()]
    models = []
    for weights in options.weights:
        model = import_model(options.model)
        load_weights(model, weights)
        models.append(model.eval())
    return [str(weights) for weights in options.weights], models


def _held(options: argparse.Namespace, clean: NamedSamples, model: nn.Module) -> Held:
    import torch

    from fl_shield.activations.penultimate import call_model
    from fl_shield.data.task import TaskSpec
    from fl_shield.probes.probe_set import ProbeSet
    from fl_shield.scanning.protocol import Held
    from fl_shield.simulations.audit_inputs import architecture_of

    with torch.no_grad():
        classes = int(call_model(model, clean.inputs[:2]).shape[1])
    shape = tuple(clean.inputs.shape[1:])
    if clean.inputs.is_floating_point():
        spec = TaskSpec("image", shape, classes)
    else:
        size = 1 + int(clean.inputs.max())
        spec = TaskSpec("text", shape, classes, vocab_size=size, pad_id=options.pad_id or 0)
    return Held(
        clean=ProbeSet(clean.inputs, clean.labels, classes),
        spec=spec,
        model=model,
        architecture=None if options.model is None else architecture_of(options.model),
        final_layer=options.final_layer,
        seed=options.seed or 0,
    )


def print_judgements(
    names: Sequence[str], judgements: Sequence[ModelJudgement], suspected: Sequence[bool]
) -> None:
    """Print a line for each model, its scores and the verdict, and the thresholds below."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console = Console(width=None if sys.stdout.isatty() else 132, highlight=False)
    table = Table()
    table.add_column("model")
    for judgement in judgements:
        table.add_column(judgement.scanner, justify="right")
    table.add_column("verdict")
    for row, name in enumerate(names):
        table.add_row(
            escape(name),
            *(f"{judgement.scores[row]:+.2f}" for judgement in judgements),
            "suspected" if suspected[row] else "passed",
            style="bold red" if suspected[row] else None,
        )
    limits = (f"{j.threshold:+.2f}{'' if j.calibrated else ' *'}" for j in judgements)
    table.add_row("threshold", *limits, "", style="dim")
    console.print(table)
    console.print(f"{sum(suspected)} of {len(names)} models suspected.")
    if not all(judgement.calibrated for judgement in judgements):
        console.print("* as published; --shadows N finds one for your task.")
