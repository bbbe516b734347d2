"""`fl-shield filter`: which inputs of a model, or which samples of its training set, are triggered.

Exit status: 0 if nothing is suspected, 3 if something is, 2 if a file or option is wrong.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn

    from fl_shield.scanning.protocol import Scores
    from fl_shield.simulations.filter_inputs import NamedSamples

EXIT_SUSPECTS = 3
"""Exit status when at least one sample is suspected."""

FORMAT, VERSION = "fl_shield.filter", 1

DEFAULT_SHADOWS = 32
"""Shadow models of mbds, as for CIFAR-10 in `docs/results/papers.md`."""

SHOWN = 20
"""Samples in the table, the most suspicious first; the JSON file has all."""

HELP = """\
Tell triggered inputs of a model from clean ones, with a handful of clean samples.

  fl-shield filter --model my_model:Net --weights net.safetensors --clean DIR --samples DIR
      Net() must return the model; its weights are read from the safetensors file.
  fl-shield filter --model-file model.pt2 --clean clean.npz --samples new.npz --json found.json
      The model as torch.export.save wrote it (eval mode, dynamic batch size).

Samples are a folder of images (one sub-folder a class, or none), or an .npz or safetensors file
with `inputs` and, where there are any, `labels`: images as bytes or floats in [0, 1], texts as
token ids. activation_clustering and spectral_signatures judge a training set and need its labels;
mbds first trains models like yours on the clean samples, and needs the labels of these.
"""

EPILOG = """\
exit status: 0 nothing is suspected, 3 something is, 2 a file or an option is wrong.
docs/scanning.md says more.
"""


def add_filter_command(commands: Any) -> None:
    """Add the subcommand to a parser's subcommands."""
    parser = commands.add_parser(
        "filter",
        help="tell triggered inputs of a model from clean ones",
        description=HELP,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--model", metavar="MODULE:FACTORY", help="code that makes the model")
    parser.add_argument("--model-file", metavar="FILE", help="model written by torch.export.save")
    parser.add_argument("--weights", metavar="FILE", help="safetensors file of --model's weights")
    parser.add_argument("--clean", metavar="PATH", required=True, help="clean samples")
    parser.add_argument("--samples", metavar="PATH", required=True, help="samples to judge")
    parser.add_argument(
        "--scanner", metavar="NAME", default="meta_shield",
        help="meta_shield (default), strip, mbds, activation_clustering or spectral_signatures",
    )  # fmt: skip
    parser.add_argument(
        "--detector", metavar="DIR", help="folder of a trained meta_shield (default: the package's)"
    )
    parser.add_argument(
        "--shadows", type=int, metavar="N",
        help=f"models that mbds trains (default: {DEFAULT_SHADOWS})",
    )  # fmt: skip
    parser.add_argument(
        "--store", metavar="DIR", help="folder where mbds keeps them, so that it can go on there"
    )
    parser.add_argument(
        "--false-alarms", type=float, default=0.05, metavar="X",
        help="share of clean samples that may be suspected (default: 0.05)",
    )  # fmt: skip
    parser.add_argument("--final-layer", metavar="NAME", help="final layer, when it is not found")
    parser.add_argument("--pad-id", type=int, default=0, help="padding token of texts (default: 0)")
    parser.add_argument(
        "--special-tokens", type=int, nargs="*", default=[], metavar="ID",
        help="other token ids of texts that are no words",
    )  # fmt: skip
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", metavar="FILE", help="also write the scores as JSON; - prints")
    parser.set_defaults(run=run_filter)


def run_filter(options: argparse.Namespace) -> int:
    """Run the command and return its exit status.

    Raises:
        FlShieldError: in one sentence, if a file or an option is wrong.
    """
    from fl_shield.errors import ConfigurationError
    from fl_shield.probes.probe_set import ProbeSet
    from fl_shield.scanning.protocol import Held, Samples
    from fl_shield.scanning.registry import build_scanner
    from fl_shield.simulations.audit_inputs import architecture_of
    from fl_shield.simulations.filter_inputs import read_samples

    clean = read_samples("--clean", options.clean)
    judged = read_samples("--samples", options.samples)
    if clean.inputs.shape[1:] != judged.inputs.shape[1:]:
        raise ConfigurationError(
            f"Expected `--samples` to have the form of `--clean`, {tuple(clean.inputs.shape[1:])}, "
            f"got {tuple(judged.inputs.shape[1:])}."
        )
    probes = ProbeSet(clean.inputs, clean.labels)
    scanner = build_scanner(options.scanner, **_settings(options))
    if scanner.level == "model":
        raise ConfigurationError(
            f"The scanner {options.scanner} judges whole models: use fl-shield audit."
        )
    if options.scanner == "mbds" and options.model_file is not None:
        raise ConfigurationError(
            "The scanner mbds trains models like yours and needs the code that makes one: give "
            "--model MODULE:FACTORY and --weights instead of --model-file."
        )
    model = _model(options, probes)
    spec, words = _spec(options, model, clean, judged)
    held = Held(
        clean=probes, spec=spec, model=model, final_layer=options.final_layer,
        architecture=architecture_of(options.model) if options.model else None,
        word_tokens=words, seed=options.seed,
    )  # fmt: skip
    scores = scanner.fit(held).score(Samples(judged.inputs, judged.labels))
    suspected = scores > scanner.threshold
    report = {
        "format": FORMAT,
        "version": VERSION,
        "scanner": options.scanner,
        "level": scanner.level,
        "false_alarms": options.false_alarms,
        "threshold": scanner.threshold,
        "clean_samples": len(clean),
        "suspected": int(suspected.sum()),
        "samples": [
            {"name": name, "score": float(score), "suspected": bool(flag)}
            for name, score, flag in zip(judged.names, scores, suspected, strict=True)
        ],
    }
    if options.json == "-":
        print(json.dumps(report, indent=1, allow_nan=False))
    else:
        _print(options.scanner, judged, scores, scanner.threshold)
    if options.json not in (None, "-"):
        _write(Path(options.json).expanduser(), report)
    return EXIT_SUSPECTS if suspected.any() else 0


def _settings(options: argparse.Namespace) -> dict[str, Any]:
    """Return the settings of the scanner, as far as they were given."""
    settings: dict[str, Any] = {"false_alarms": options.false_alarms}
    if options.detector is not None:
        settings["weights"] = str(Path(options.detector).expanduser())
    if options.store is not None:
        settings["store"] = Path(options.store).expanduser()
    if options.shadows is not None:
        settings["extractors"] = options.shadows
    if options.scanner == "mbds":
        settings = {"extractors": DEFAULT_SHADOWS} | settings
        settings |= {"features": "evidence", "share": 1.0, "watch": _progress}
    return settings


def _progress(numbers: Sequence[int]) -> Iterable[int]:
    """Show on the terminal how many shadow models are trained; nothing in a pipe."""
    from rich.console import Console
    from rich.progress import track

    console = Console(stderr=True)
    return track(
        numbers, "shadow models", console=console, transient=True, disable=not console.is_terminal
    )


def _model(options: argparse.Namespace, probes: Any) -> nn.Module:
    from fl_shield.errors import ConfigurationError
    from fl_shield.simulations.audit_inputs import import_model, read_model
    from fl_shield.simulations.filter_inputs import load_weights

    if (options.model is None) == (options.model_file is None):
        raise ConfigurationError(
            "Expected either --model module:factory or --model-file FILE, got "
            f"{'neither' if options.model is None else 'both'}."
        )
    if options.model_file is not None:
        if options.weights is not None:
            raise ConfigurationError(
                "--weights goes with --model: a file of torch.export has its weights in it."
            )
        return read_model(Path(options.model_file).expanduser(), probes)
    model = import_model(options.model)
    if options.weights is not None:
        load_weights(model, options.weights)
    return model.eval()


def _spec(
    options: argparse.Namespace, model: nn.Module, clean: NamedSamples, judged: NamedSamples
) -> tuple[Any, tuple[int, ...] | None]:
    """Return kind and shape of the task, and for texts the token ids that are words."""
    import torch

    from fl_shield.activations.penultimate import call_model
    from fl_shield.data.task import TaskSpec

    with torch.no_grad():
        classes = int(call_model(model.eval(), clean.inputs[:2]).shape[1])
    shape = tuple(clean.inputs.shape[1:])
    if clean.inputs.is_floating_point():
        return TaskSpec("image", shape, classes), None
    size = 1 + max(int(clean.inputs.max()), int(judged.inputs.max()))
    special = {options.pad_id, *options.special_tokens}
    words = tuple(token for token in range(size) if token not in special)
    return TaskSpec("text", shape, classes, vocab_size=size, pad_id=options.pad_id), words


def _print(scanner: str, judged: NamedSamples, scores: Scores, threshold: float) -> None:
    import sys

    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console = Console(width=None if sys.stdout.isatty() else 100, highlight=False)
    table = Table()
    table.add_column("sample", no_wrap=True)
    table.add_column("score", justify="right")
    table.add_column("verdict")
    order = (-scores).argsort(kind="stable")
    for row in order[:SHOWN].tolist():
        is_suspect = bool(scores[row] > threshold)
        table.add_row(
            escape(judged.names[row]),
            f"{scores[row]:+.3f}",
            "suspected" if is_suspect else "passed",
            style="bold red" if is_suspect else None,
        )
    console.print(table)
    if len(judged) > SHOWN:
        console.print(f"… and {len(judged) - SHOWN} less suspicious ones; --json FILE has all.")
    console.print(
        f"{int((scores > threshold).sum())} of {len(judged)} samples suspected, above "
        f"{threshold:.3g}. Scanner: {scanner}.",
        markup=False,
        soft_wrap=True,
    )


def _write(file: Path, report: dict[str, Any]) -> None:
    from fl_shield.errors import ConfigurationError, expected

    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(report, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    except OSError as error:
        raise ConfigurationError(
            expected("--json", "a file that can be written", str(file), f"{error}.")
        ) from error
