"""Shadow episodes on disk: one folder a federation, one captured cohort a round.

    <store>/<run>/run.json             domain, recipe and facts of each round
    <store>/<run>/probes.safetensors   the server's clean samples
    <store>/<run>/round-000001/        a captured cohort (fl_shield.cohort_io)

A federation that is complete is not played again, so an interrupted generation goes on.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from fl_shield.atomic import draft_of
from fl_shield.cohort import Cohort
from fl_shield.cohort_io import capture, replay
from fl_shield.data.task import Split
from fl_shield.errors import StateError
from fl_shield.shadow.domain import Domain
from fl_shield.shadow.federation import ShadowFederation
from fl_shield.shadow.recipe import Recipe, RecipeRanges, draw_recipe

RUN_FILE = "run.json"
PROBES_FILE = "probes.safetensors"
VERSION = 1


@dataclass(frozen=True)
class StoredRun:
    """A federation on disk.

    Attributes:
        folder: Where it is.
        domain: Name of its domain.
        facts: Its recipe, JSON-ready.
        rounds: For each round: number, truth, harm and facts, JSON-ready.
    """

    folder: Path
    domain: str
    facts: dict[str, Any]
    rounds: list[dict[str, Any]]

    @property
    def name(self) -> str:
        """Identity of the federation."""
        return self.folder.name

    def cohort(self, entry: dict[str, Any]) -> Cohort:
        """Return the captured cohort of one of `rounds`."""
        return replay(self.folder / _round_folder(entry["round"]))

    def probes(self) -> Split:
        """Return the server's clean samples.

        Raises:
            StateError: if they are missing or damaged.
        """
        file = self.folder / PROBES_FILE
        try:
            tensors = load_file(file)
            return Split(tensors["inputs"], tensors["labels"])
        except (OSError, SafetensorError, KeyError) as error:
            raise StateError(f"{file} is missing or damaged: {error}.") from error


def run_name(domain: str, seed: int) -> str:
    """Return the name of a federation: of its folder, and of its table."""
    return f"{domain}-{seed:07d}"


def domain_of(run: str) -> str:
    """Return the domain in a federation's name."""
    return run.rpartition("-")[0]


def play(domain: Domain, seed: int, ranges: RecipeRanges, store: Path) -> Path:
    """Play the federation of a seed into `store`, unless it is there, and return its folder."""
    folder = store / run_name(domain.name, seed)
    if (folder / RUN_FILE).is_file():
        return folder
    federation = ShadowFederation(domain, recipe_of(domain, seed, ranges))
    folder.mkdir(parents=True, exist_ok=True)
    probes = {"inputs": federation.probes.inputs, "labels": federation.probes.labels}
    save_file({k: t.contiguous() for k, t in probes.items()}, folder / PROBES_FILE)
    rounds = []
    for played in federation.rounds():
        number = played.cohort.round_number
        entry = {
            "round": number,
            "malicious": played.malicious,
            "harm": [round(h, 4) for h in played.harm],
            "facts": dict(played.facts),
        }
        capture(played.cohort, folder / _round_folder(number), entry)
        rounds.append(entry)
    facts = federation.recipe.facts() | {"trigger_legend": str(federation.trigger)}
    document = {"version": VERSION, "domain": domain.name, "facts": facts, "rounds": rounds}
    with draft_of(folder / RUN_FILE) as draft:  # last: a folder without it is played again
        draft.write_text(json.dumps(document) + "\n", encoding="utf-8")
    return folder


def recipe_of(domain: Domain, seed: int, ranges: RecipeRanges) -> Recipe:
    """Return the recipe that a seed draws in a domain."""
    architectures = {name: tuple(a.rates) for name, a in domain.architectures.items()}
    return draw_recipe(seed, architectures, domain.task.spec.modality, ranges)


def stored_runs(store: Path) -> Iterator[StoredRun]:
    """Yield the complete federations of a store, in the order of their names.

    Raises:
        StateError: naming a run file that is damaged or of another version.
    """
    for file in sorted(store.glob(f"*/{RUN_FILE}")):
        yield stored_run(file.parent)


def stored_run(folder: Path) -> StoredRun:
    """Return a complete federation.

    Raises:
        StateError: if its run file is missing, damaged or of another version.
    """
    file = folder / RUN_FILE
    try:
        document = json.loads(file.read_text(encoding="utf-8"))
        if document["version"] != VERSION:
            raise StateError(f"{file} has version {document['version']!r}; expected {VERSION}.")
        return StoredRun(folder, document["domain"], document["facts"], document["rounds"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StateError(f"{file} is damaged: {error!r}. Delete its folder.") from error


def _round_folder(number: int) -> str:
    return f"round-{number:06d}"
