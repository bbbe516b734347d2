"""Figures and page of `benchmarks.server_shadows`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fl_shield.metrics.detection import auroc, detection_rates

Found = Mapping[str, Any]


def summed(
    found: Sequence[Found], shifts: Sequence[Mapping[str, float | None]], threshold: float
) -> list[dict[str, Any]]:
    """Return a row of figures for each data set and number of clean samples, clients pooled.

    Args:
        found: What was measured, a federation each.
        shifts: What the live calibration of each subtracts, by number of clean samples; None
            where the samples are too few and the detector's own calibration stays.
        threshold: Score from which a client is flagged.
    """
    rows: list[dict[str, Any]] = []
    for domain in sorted({each["domain"] for each in found}):
        mine = [(f, s) for f, s in zip(found, shifts, strict=True) if f["domain"] == domain]
        noise = [score for each, _ in mine for score in each["noise"]]
        truth = [bad for each, _ in mine for bad in each["malicious"]]
        rows.append(
            {
                "domain": domain, "samples": 0, "federations": len(mine), "clients": len(truth),
                "malicious": sum(truth), "calibrated": 0, "power": None,
                "full": _figures(noise, noise, truth, threshold),
            }
        )  # fmt: skip
        for samples in mine[0][0]["samples"]:
            pairs = [(f, s[samples]) for f, s in mine]
            rows.append(
                {"domain": domain, "samples": int(samples)} | _row(pairs, samples, threshold)
            )
    return rows


def _row(
    pairs: Sequence[tuple[Found, float | None]], samples: str, threshold: float
) -> dict[str, Any]:
    full: list[float] = []
    full_live: list[float] = []
    truth: list[bool] = []
    alone: list[float] = []
    alone_live: list[float] = []
    alone_truth: list[bool] = []
    same: list[float] = []
    poisoned: list[bool] = []
    for each, shift in pairs:
        figures, lower = each["samples"][samples], shift or 0.0
        full += figures["full"]
        full_live += [score - lower for score in figures["full"]]
        truth += each["malicious"]
        poisoned += [score - lower >= threshold for score in figures["poisoned_shadows"]]
        for index, score in figures.get("alone", {}).items():
            alone.append(score)
            alone_live.append(score - max(lower, 0.0))  # as `Rehearsal.score` does
            alone_truth.append(each["malicious"][int(index)])
            same.append(figures["full"][int(index)])
    row: dict[str, Any] = {
        "federations": len(pairs),
        "clients": len(truth),
        "malicious": sum(truth),
        "calibrated": sum(shift is not None for _, shift in pairs),
        "power": float(np.mean(poisoned)),
        "full": _figures(full, full_live, truth, threshold),
    }
    if alone:
        row["alone"] = _figures(alone, alone_live, alone_truth, threshold)
        row["alone"] |= {"clients": len(alone), "malicious": sum(alone_truth)}
        row["same_clients_in_full"] = _figures(same, same, alone_truth, threshold)
    return row


def _figures(
    scores: Sequence[float], live: Sequence[float], truth: Sequence[bool], threshold: float
) -> dict[str, Any]:
    tpr, fpr = detection_rates([score >= threshold for score in scores], truth)
    live_tpr, live_fpr = detection_rates([score >= threshold for score in live], truth)
    return {
        "auroc": auroc(scores, truth),
        "tpr": tpr, "fpr": fpr, "live_tpr": live_tpr, "live_fpr": live_fpr,
    }  # fmt: skip


def page(figures: Mapping[str, Any], command: str) -> str:
    """Return the tables, as Markdown."""
    rate = figures["rate"]
    lines = [
        "# The server's own shadows",
        "",
        f"Written by `{command}`, for the detector with the digest "
        f"`{figures['detector_sha256'][:12]}`.",
        "",
        "## Clients judged alone",
        "",
        f"One client among {figures['lent_shadows']} shadows of the server, against the same "
        "clients in their full cohorts. AUROC is pooled over clients; TPR and FPR are at the "
        "detector's threshold, and with the live calibration, which here only ever raises it.",
        "",
        "| data | clean samples | clients (malicious) | AUROC in the cohort | AUROC alone "
        "| TPR | FPR | TPR live | FPR live |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for row in figures["rows"]:
        if "alone" not in row:
            continue
        alone = row["alone"]
        lines.append(
            f"| {row['domain']} | {row['samples']} | {alone['clients']} ({alone['malicious']}) | "
            f"{_shown(row['same_clients_in_full']['auroc'])} | {_shown(alone['auroc'])} | "
            + " | ".join(_shown(alone[name]) for name in ("tpr", "fpr", "live_tpr", "live_fpr"))
            + " |"
        )
    lines += [
        "",
        "## Live calibration of full cohorts",
        "",
        f"Calibrated on {figures['rehearsed_shadows']} honest shadows of each round for a false "
        f"positive rate of {rate:g}; where the clean samples do not suffice, the detector's own "
        "calibration stays. *Seen* is the share of poisoned shadows above the threshold. Without "
        "clean samples, clients are looked at through noise.",
        "",
        "| data (clients, malicious) | clean samples | calibrated | AUROC | TPR | FPR "
        "| TPR live | FPR live | seen |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for row in figures["rows"]:
        full = row["full"]
        lines.append(
            f"| {row['domain']} ({row['clients']}, {row['malicious']}) | {row['samples']} | "
            f"{row['calibrated']} of {row['federations']} | "
            + " | ".join(
                _shown(full[name]) for name in ("auroc", "tpr", "fpr", "live_tpr", "live_fpr")
            )
            + f" | {_shown(row['power'])} |"
        )
    return "\n".join([*lines, ""])


def _shown(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"
