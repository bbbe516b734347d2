"""From stored federations to episode tables: what a server with a few clean samples would see."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np

from fl_shield.baselines import score_all
from fl_shield.data.task import Split, TaskSpec, model_inputs
from fl_shield.descriptors.plan import Plan
from fl_shield.errors import ConfigurationError, expected
from fl_shield.inspection import Inspector
from fl_shield.probes.probe_set import ProbeSet
from fl_shield.probes.synthetic import synthetic_probes
from fl_shield.shadow.domain import Domain
from fl_shield.shadow.store import StoredRun
from fl_shield.shadow.table import EpisodeTable

CLEAN_SAMPLES = 16
"""Clean samples of the server in the figures that are headlines."""


def probe_set(probes: Split, spec: TaskSpec, clean_samples: int) -> ProbeSet:
    """Return the first `clean_samples` of a stored run's probes, which even out the classes.

    A server that has none makes its probes up.

    Raises:
        ConfigurationError: if there are fewer.
    """
    if not 0 <= clean_samples <= len(probes):
        raise ConfigurationError(
            expected("clean_samples", f"between 0 and {len(probes)}", clean_samples)
        )
    if clean_samples == 0:
        return synthetic_probes(spec)
    part = Split(probes.inputs[:clean_samples], probes.labels[:clean_samples])
    return ProbeSet(model_inputs(part.inputs), part.labels, spec.num_classes)


def describe_run(
    run: StoredRun,
    domain: Domain,
    clean_samples: int = CLEAN_SAMPLES,
    seed: int = 0,
    *,
    rivals: bool = False,
    leave_out: Collection[str] = (),
) -> list[EpisodeTable]:
    """Return the tables of a federation's rounds.

    Args:
        run: The federation.
        domain: Its domain, which knows its architecture.
        clean_samples: Clean samples of the server; 0 for one that makes its probes up.
        seed: Seed of the noise and candidate views.
        rivals: Whether the facts of a round hold, as `rivals`, the suspicion statistics of
            published defences on the same updates (`fl_shield.baselines`), name to one a client.
        leave_out: Where not to look, as in `*@10/*`.
    """
    spec = domain.task.spec
    model = domain.architectures[run.facts["architecture"]].model(spec)
    probes = probe_set(run.probes(), spec, clean_samples)
    inspector = Inspector(model, probes, columns=Plan().without(leave_out), seed=seed)
    tables = []
    for entry in run.rounds:
        cohort = run.cohort(entry)
        table = inspector.describe(cohort)
        inspector.memory.keep()
        facts = episode_facts(run, entry, clean_samples)
        if rivals:
            scores = score_all(cohort, model, probes, seed)
            facts["rivals"] = {name: values.tolist() for name, values in scores.items()}
        tables.append(
            EpisodeTable(
                domain=run.domain,
                run=run.name,
                round_number=int(entry["round"]),
                names=table.names,
                raw=table.raw,
                malicious=np.array(entry["malicious"], dtype=bool),
                client_ids=np.array([client.client_id for client in cohort.clients]),
                facts=facts,
            )
        )
    return tables


def episode_facts(run: StoredRun, entry: Mapping[str, Any], clean_samples: int) -> dict[str, Any]:
    """Return the facts of one round: the run's, the round's, and what the server had."""
    facts = {**run.facts, **entry["facts"]}
    return facts | {"harm": entry["harm"], "clean_samples": clean_samples}
