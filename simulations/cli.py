"""The `fl-shield` command. Heavy imports wait until a command needs them: `--help` is instant."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from fl_shield.simulations.audit_cli import add_audit_command
from fl_shield.simulations.filter_cli import add_filter_command

EXIT_USAGE = 2
"""Exit status when the user's settings or files are wrong."""

EXIT_FAILED = 1
"""Exit status when a run broke off for any other reason."""

PLAIN_WIDTH = 100
"""Columns of output that goes to a file or a pipe."""

WIDE = 160
"""The same for the tables of many runs."""

SIMULATE_HELP = """\
Run one federation in several arms (no attack; attack without defence; attack with defence) and
compare them: table, plots, HTML report, audit log, W&B run, summary.json.

Settings are Hydra overrides, key=value:

  fl-shield simulate                                  the embedded handwritten digits
  fl-shield simulate data=mnist rounds=20             MNIST through torchvision
  fl-shield simulate data=image_folder data.root=DIR  your own images, one folder a class
  fl-shield simulate data=text_csv data.path=DIR      your own texts, train.csv and test.csv
  fl-shield simulate attack=model_replacement attackers=0.4 partition.alpha=0.1
  fl-shield simulate strategy=fedadam defence.policy=downweight tracking.mode=online
  fl-shield simulate --resume runs/NAME               go on with an interrupted run
  fl-shield simulate data=sst2 --cfg                  show the configuration, run nothing
"""


SHADOW_HELP = """\
Play shadow federations with known attackers and describe every round, so that a detector can be
learned from them (fl-shield meta-train). What is finished is kept: run it again to go on.

  fl-shield shadow                                    embedded data alone
  fl-shield shadow data_root=DIR domains=[mnist,sst2] data sets of your own folder
  fl-shield shadow kind=evaluation runs=10            the federations that detectors are judged on
  fl-shield shadow workers=16                         more processes; RAY_ADDRESS for a cluster
  fl-shield shadow --cfg                              show all settings
"""


META_TRAIN_HELP = """\
Learn the detector from the tables of shadow federations (fl-shield shadow). What is trained is kept
in checkpoints: run it again to go on.

  fl-shield meta-train tables=shadow/tables out=detector
  fl-shield meta-train tables=[one/tables,two/tables] held_out=[mnist] out=without-mnist
  fl-shield meta-train algorithm=fomaml steps=600 workers=2
  fl-shield meta-train --cfg                          show all settings

A detector is used by MetaShield(detector=load_detector("detector")).
"""


STUDY_HELP = """\
Run a grid of federations, each cell a run folder, in parallel; then tables, plots and one HTML page
of them all. What is finished is kept: run it again to go on.

  fl-shield study                                     a small one, on embedded data
  fl-shield study study=potency data_root=DIR         each attack without a defence
  fl-shield study study=headline workers=16           more processes; RAY_ADDRESS for a cluster
  fl-shield study study=headline seeds=[0] 'include=[{data:mnist,defence:[none,meta_shield]}]'
  fl-shield study study=smoke rounds=8 name=longer    any setting of simulate, for every cell
  fl-shield study study=headline --cells              name the cells, run nothing
"""

REPORT_HELP = """\
Draw the report again. One run folder gets its own page and plots, inside it. Several, or a folder
that holds several, become one report in a folder of its own: report.html, results.csv, .md, .tex
and plots.

  fl-shield report runs/NAME
  fl-shield report runs/ONE runs/TWO --out comparison
  fl-shield report studies/headline
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.command is None:
        parser.print_help()
        return 0
    from fl_shield.errors import ConfigurationError, FlShieldError, StateError

    try:
        status: int = options.run(options)
    except FlShieldError as error:
        print(f"fl-shield: {error}", file=sys.stderr)
        return EXIT_USAGE if isinstance(error, ConfigurationError | StateError) else EXIT_FAILED
    except KeyboardInterrupt:
        print("fl-shield: interrupted.", file=sys.stderr)
        return 130
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="fl-shield",
        description="A backdoor defence for federated learning with Flower.",
    )
    parser.add_argument("--version", action="version", version=f"fl-shield {_version()}")
    commands = parser.add_subparsers(dest="command", metavar="command")
    simulate = commands.add_parser(
        "simulate",
        help="run a federation with and without attack and defence, and compare",
        description=SIMULATE_HELP,
        epilog=_groups_text(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    simulate.add_argument("overrides", nargs="*", metavar="key=value", help="Hydra overrides")
    simulate.add_argument("--resume", metavar="RUN", help="run folder to go on with")
    simulate.add_argument(
        "--config-dir", metavar="DIR", help="more options: your folder of GROUP/NAME.yaml"
    )
    simulate.add_argument("--cfg", action="store_true", help="print the configuration and stop")
    simulate.set_defaults(run=_simulate)
    study = commands.add_parser(
        "study",
        help="run a grid of federations, each once, and report on all of them",
        description=STUDY_HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    study.add_argument("overrides", nargs="*", metavar="key=value", help="Hydra overrides")
    study.add_argument(
        "--config-dir", metavar="DIR", help="more options: your folder of GROUP/NAME.yaml"
    )
    study.add_argument("--cells", action="store_true", help="name the cells and stop")
    study.add_argument("--cfg", action="store_true", help="print the configuration and stop")
    study.set_defaults(run=_study)
    report = commands.add_parser(
        "report",
        help="report on run folders again, finished or not: one, or many beside each other",
        description=REPORT_HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    report.add_argument("run_folders", nargs="+", metavar="RUN", help="run folders")
    report.add_argument("--out", metavar="DIR", help="where the report of several runs goes")
    report.set_defaults(run=_report)
    add_audit_command(commands)
    add_filter_command(commands)
    shadow = commands.add_parser(
        "shadow",
        help="play shadow federations that the detector is learned from",
        description=SHADOW_HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    shadow.add_argument("overrides", nargs="*", metavar="key=value", help="Hydra overrides")
    shadow.add_argument("--cfg", action="store_true", help="print the configuration and stop")
    shadow.set_defaults(run=_shadow)
    meta_train = commands.add_parser(
        "meta-train",
        help="learn the detector from shadow federations",
        description=META_TRAIN_HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    meta_train.add_argument("overrides", nargs="*", metavar="key=value", help="Hydra overrides")
    meta_train.add_argument("--cfg", action="store_true", help="print the configuration and stop")
    meta_train.set_defaults(run=_meta_train)
    return parser


def _groups_text() -> str:
    root = Path(__file__).resolve().parent.parent / "conf"
    lines = ["groups and their options (fl-shield simulate GROUP=OPTION):"]
    for folder in sorted(path for path in root.iterdir() if path.is_dir() and path.name != "study"):
        options = sorted(file.stem for file in folder.glob("*.yaml"))
        if options:
            lines.append(f"  {folder.name:<11}{', '.join(options)}")
    lines.append("\nmain settings, with their defaults:")
    inside = False
    for line in (root / "config.yaml").read_text(encoding="utf-8").splitlines():
        inside = inside or line.startswith("seed:")
        if inside and line.strip():
            lines.append(f"  {line}")
    return "\n".join(lines).replace("%", "%%")


def _version() -> str:
    try:
        return version("fl-shield")
    except PackageNotFoundError:
        return "(not installed)"


def _simulate(options: argparse.Namespace) -> int:
    from omegaconf import OmegaConf
    from rich.console import Console

    from fl_shield.errors import ConfigurationError
    from fl_shield.simulations.composing import compose_config
    from fl_shield.simulations.settings import settings_from
    from fl_shield.simulations.simulate import resume_settings, simulate

    console = Console(width=None if sys.stdout.isatty() else PLAIN_WIDTH)
    if options.resume is not None:
        if options.overrides:
            raise ConfigurationError(
                f"Expected --resume alone, got {options.overrides[0]!r} as well. A run is resumed "
                "with the settings it was started with."
            )
        folder = Path(options.resume).expanduser().absolute()
        return simulate(resume_settings(folder), folder, console, is_resume=True)
    config = compose_config(options.overrides, options.config_dir)
    if options.cfg:
        print(OmegaConf.to_yaml(config), end="")
        return 0
    settings = settings_from(config)
    from fl_shield.simulations.server_app import default_folder

    folder = default_folder(settings)
    return simulate(settings, folder, console, overrides=options.overrides)


def _shadow(options: argparse.Namespace) -> int:
    from omegaconf import OmegaConf
    from rich.console import Console

    from fl_shield.simulations.composing import compose_config
    from fl_shield.simulations.shadow import shadow

    config = compose_config(options.overrides, name="shadow")
    if options.cfg:
        print(OmegaConf.to_yaml(config), end="")
        return 0
    return shadow(config, Console(width=None if sys.stdout.isatty() else PLAIN_WIDTH))


def _meta_train(options: argparse.Namespace) -> int:
    from omegaconf import OmegaConf
    from rich.console import Console

    from fl_shield.simulations.composing import compose_config
    from fl_shield.simulations.meta_train import meta_train

    config = compose_config(options.overrides, name="meta_train")
    if options.cfg:
        print(OmegaConf.to_yaml(config), end="")
        return 0
    console = Console(width=None if sys.stdout.isatty() else PLAIN_WIDTH)
    return meta_train(config, console, options.overrides)


def _study(options: argparse.Namespace) -> int:
    from omegaconf import OmegaConf
    from rich.console import Console

    from fl_shield.simulations.composing import compose_config
    from fl_shield.simulations.study import list_cells, study
    from fl_shield.simulations.study_plan import split_overrides

    own, cell_overrides = split_overrides(options.overrides)
    config = compose_config(own, options.config_dir, name="study")
    console = Console(width=None if sys.stdout.isatty() else WIDE)
    if options.cfg:
        print(OmegaConf.to_yaml(config), end="")
        return 0
    run = list_cells if options.cells else study
    return run(config, console, cell_overrides, options.config_dir)


def _report(options: argparse.Namespace) -> int:
    from fl_shield.simulations.reporting import report_runs, run_folders_in

    folders = run_folders_in([Path(name).expanduser() for name in options.run_folders])
    if len(folders) > 1 or options.out is not None:
        from rich.console import Console

        first = Path(options.run_folders[0]).expanduser()
        is_home = len(options.run_folders) == 1 and folders != [first]
        out = options.out or (first / "report" if is_home else "report")
        console = Console(width=None if sys.stdout.isatty() else WIDE)
        report_runs(folders, Path(out).expanduser(), console)
        return 0
    from fl_shield.simulations.plots import draw_all
    from fl_shield.simulations.report import build_report

    draw_all(folders[0])
    print(build_report(folders[0]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
