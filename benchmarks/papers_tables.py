"""`docs/results/papers.json`, and the page of tables that is read from it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.marked_table import write_table
from fl_shield.scanning.rates import Rates

RESULTS = Path(__file__).resolve().parent.parent / "docs" / "results"

PUBLISHED = {
    ("mnist", "jumbo"): (0.4912, 0.3190, 0.5027),
    ("mnist", "badnets"): (0.6861, 0.2277, 0.3266),
    ("mnist", "blended"): (0.4240, 0.1696, 0.5904),
    ("cifar10", "jumbo"): (0.2085, 0.1913, 0.7761),
    ("cifar10", "badnets"): (0.0060, 0.2534, 0.9473),
    ("cifar10", "blended"): (0.3500, 0.5095, 0.6171),
}
"""FAR, FRR and F2 of MBDS, Table III."""

TITLE = """\
# The detectors of the papers, on the same victims

Written by `make results-papers`; the figures are those of [papers.json](papers.json). A cell is
**F2**, with FAR and FRR behind it, in %, a mean over the victims of an attack. F2 is that of as
many triggered samples as clean ones, as in MBDS. All triggered samples count, also those that the
victim does not obey; none is of the target class. A model with an attack success rate below
{least:.0%} is no victim, as those of MBDS obey in 99 % of cases: another setting was drawn, as
often as the table of victims says.

Size of this run: {judged} clean and {judged} triggered inputs of each victim; shadow models of
`meta_shield`: {shadow}.

- `meta_shield` judges inputs by a detector that has seen nothing of the data set, and holds as many
  clean samples of it as it says. They are drawn {draws} times for each victim, and a figure is the
  mean: how many false alarms there are hangs on which they are. With a single draw, as this page
  had it before, CIFAR-10 Blended and SST-2 Jumbo had more than 5 % of them, and no column of
  AG News. The threshold aims at 5 % at most; where a column has more, it was left as it is: it
  would have been chosen on what it is judged by. Weights and thresholds come from shadow tasks, by
  data sets that were left out. Its form was revised after earlier results on some of these
  victims, where it missed Blended on MNIST: a kernel that is linear above all, more clean partners,
  shadow tasks that share no trigger, and how many of them. With 16 tasks a data set instead of 8,
  or a threshold for half the rate instead of three fifths, it missed the sentence of one victim on
  AG News altogether. Half as many further tasks of images have noise over the whole image: after it
  had missed Blended on one victim of MNIST, the shadow tasks of data sets that were left out were
  looked at, and what it missed there was such noise. So there are further victims below.
- `strip` holds 64 clean samples, threshold for 5 %.
- `mbds` holds 4 % of the data, here a few hundred samples, and trains shadow models of the victim's
  architecture, with {feature_share:.0%} of their features (the paper: 1,024 models with 1 %), at
  even odds as in the paper. It reads the victim's maps; `black box` those that the shadow models
  make of an input, as the defender of section III-D cannot look into the victim. `grad-cam` sees
  Grad-CAM instead of maps, as in its section V-E. `evidence` sees what the maps say for the
  predicted class, beside what clean samples of that class say on the same model
  (`fl_shield/scanning/evidence_maps.py`), all of it, threshold for 5 %. That it takes samples that
  a shadow model was not trained on, and both views of the evidence, was chosen by keeping shadow
  models out; first results on these victims were looked at beside. F2 is no friend of the cautious:
  whoever suspects every input has 83.3.
- `activation_clustering` and `spectral_signatures` judge the victim's *training set*, holding 4 %
  of the data, threshold for 5 %. A poisoned share of a class above a third is out of their reach,
  and most victims have one.
"""

FRESH = """\
Further victims, judged when the methods had their final form; nothing was chosen by them.

"""


def write_results(
    rows: Sequence[Mapping[str, Any]],
    fresh: Sequence[Mapping[str, Any]],
    facts: Mapping[str, Any],
) -> None:
    """Write the JSON file, the page, and a table into README.

    Args:
        rows: Of all methods.
        fresh: Of our own methods on further victims.
        facts: About the study.
    """
    RESULTS.mkdir(parents=True, exist_ok=True)
    content = {"command": "make results-papers", **facts, "rows": list(rows), "fresh": list(fresh)}
    text = json.dumps(content, indent=1, allow_nan=False) + "\n"
    (RESULTS / "papers.json").write_text(text, encoding="utf-8")
    (RESULTS / "papers.md").write_text(page(rows, fresh, facts), encoding="utf-8")
    write_table(RESULTS.parents[1] / "README.md", "papers-table", summary(rows))


def page(
    rows: Sequence[Mapping[str, Any]],
    fresh: Sequence[Mapping[str, Any]],
    facts: Mapping[str, Any],
) -> str:
    """Return the page of a study's rows."""
    shadow = ", ".join(f"{name} {count}" for name, count in facts["shadow_models"].items())
    parts = [TITLE.format(**facts, shadow=shadow)]
    main = [r for r in rows if r["method"] not in facts["adapted"]]
    for kind, names in (("Vision", ("mnist", "cifar10")), ("Language", ("sst2", "ag_news"))):
        chosen = [r for r in main if r["data"] in names]
        if chosen:
            parts.append(f"## {kind}\n\n{_table(chosen)}")
    if fresh:
        parts.append(f"## Victims that nothing was chosen on\n\n{FRESH}{_table(fresh)}")
    parts.append(f"## Triggered inputs that the victim obeys\n\n{_obeyed(main)}")
    parts.append(f"## How fast it adapts\n\n{_adaptation(rows, facts['adapted'])}")
    parts.append(f"## Victims\n\n{victims_table(rows)}")
    parts.append(f"## Shadow models of MBDS\n\n{_extractors(facts['extractor_figures'])}")
    return "\n".join(parts)


def summary(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return the table of README: F2 by data set and attack, of the methods that judge inputs."""
    shown = {
        "meta_shield, 16 clean": "**MetaShield**",
        "strip": "STRIP",
        "mbds": "MBDS",
        "mbds, evidence": "MBDS, evidence",
    }
    head = ["F2", *shown.values(), "MBDS as published"]
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for data, attack in _columns(rows):
        cells = [_mean_cell(rows, method, data, attack) for method in shown]
        published = PUBLISHED.get((data, attack))
        cells.append(_cell(*published) if published else "–")
        lines.append(f"| {data} {attack} | {' | '.join(cells)} |")
    return "\n".join(lines)


def victims_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return how good the victims are, and what F2 their triggers leave to be had."""
    lines = [
        "The last column is the F2 of whoever suspects exactly the triggered inputs that get the",
        "target class: what a method can reach that goes by what the model does.\n",
        "| data | attack | victims | redrawn | BA | ASR | F2 to be had |",
        "|---|---|---|---|---|---|---|",
    ]
    seen = {(r["data"], r["attack"], r["victim"]): r for r in rows}
    for data, attack in dict.fromkeys((d, a) for d, a, _ in seen):
        own = [r for (d, a, _), r in seen.items() if (d, a) == (data, attack)]
        benign = float(np.mean([r["benign_accuracy"] for r in own]))
        success = float(np.mean([r["attack_success"] for r in own]))
        redrawn = sum(r["redrawn"] for r in own)
        best = float(np.mean([Rates(far=1.0 - r["attack_success"], frr=0.0).f2 for r in own]))
        lines.append(
            f"| {data} | {attack} | {len(own)} | {redrawn} | {benign:.1%} | {success:.1%} "
            f"| {100 * best:.1f} |"
        )
    return "\n".join(lines) + "\n"


def _obeyed(rows: Sequence[Mapping[str, Any]]) -> str:
    columns = _columns(rows)
    lines = [
        "F2 where triggered inputs that the victim classifies as without the trigger do not count:",
        "they are no attack, and nothing that the model does gives them away.\n",
        "| method | " + " | ".join(f"{d} {a}" for d, a in columns) + " |",
        "|---|" + "---|" * len(columns),
    ]
    for method in dict.fromkeys(r["method"] for r in rows if r["level"] == "sample"):
        cells = []
        for column in columns:
            own = [
                r["f2_obeyed"]
                for r in rows
                if (r["data"], r["attack"], r["method"]) == (*column, method)
            ]
            cells.append(f"{100 * np.mean(own):.1f}" if own else "–")
        lines.append(f"| {method} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _adaptation(rows: Sequence[Mapping[str, Any]], adapted: Sequence[str]) -> str:
    of_first = [r for r in rows if r["victim"] == 0 and r["method"].startswith("meta_shield")]
    if not any(r["method"] in adapted for r in of_first):
        return "Not measured.\n"
    return (
        "On the first victim of each attack, by the number of clean samples. Of the triggers, all\n"
        "but Jumbo were never trained on. From 35 samples on, those beyond 16 set the threshold;\n"
        "with fewer it is the one of the card.\n\n" + _table(sorted(of_first, key=_samples))
    )


def _samples(row: Mapping[str, Any]) -> int:
    return int(row["clean_samples"])


def _columns(rows: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    found = list(dict.fromkeys((str(r["data"]), str(r["attack"])) for r in rows))
    return sorted(found, key=lambda c: (-len(c[0]) if c[0] != "mnist" else -99, c))


def _table(rows: Sequence[Mapping[str, Any]]) -> str:
    columns = _columns(rows)
    lines = ["| method | " + " | ".join(f"{d} {a}" for d, a in columns) + " |"]
    lines.append("|---|" + "---|" * len(columns))
    if any(r["method"] == "mbds" for r in rows):
        cells = [_cell(*PUBLISHED[c]) if c in PUBLISHED else "–" for c in columns]
        lines.append("| MBDS as published | " + " | ".join(cells) + " |")
    for method in dict.fromkeys(r["method"] for r in rows):
        cells = [_mean_cell(rows, method, *column) for column in columns]
        lines.append(f"| {method} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _mean_cell(rows: Sequence[Mapping[str, Any]], method: str, data: str, attack: str) -> str:
    own = [r for r in rows if (r["data"], r["attack"], r["method"]) == (data, attack, method)]
    if not own:
        return "–"
    return _cell(*(float(np.mean([r[key] for r in own])) for key in ("far", "frr", "f2")))


def _cell(far: float, frr: float, f2: float) -> str:
    return f"**{100 * f2:.1f}** ({100 * far:.1f}, {100 * frr:.1f})"


def _extractors(figures: Mapping[str, Mapping[str, float]]) -> str:
    lines = [
        "On the defender's own samples. Where few triggered ones obey, the meta-classifier has",
        "little to learn from; the paper reports an ASR of 91 % for its shadow models.\n",
        "| data | shadow models | BA | ASR |",
        "|---|---|---|---|",
    ]
    for data, found in figures.items():
        lines.append(
            f"| {data} | {found['count']} | {found['benign_accuracy']:.1%} "
            f"| {found['attack_success']:.1%} |"
        )
    return "\n".join(lines) + "\n"
