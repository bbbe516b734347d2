"""Tables that the measurements of scanners write into README: means, and what is missing."""

from benchmarks.model_scanning_tables import auroc_table
from benchmarks.papers_tables import summary, victims_table


def test_inputs_are_shown_by_data_set_and_attack_with_means_over_victims() -> None:
    def row(data: str, method: str, f2: float) -> dict[str, object]:
        return {
            "data": data,
            "attack": "jumbo",
            "method": method,
            "f2": f2,
            "far": 0.25,
            "frr": 0.5,
        }

    rows = [
        row("mnist", "meta_shield, 16 clean", 0.8),
        row("mnist", "meta_shield, 16 clean", 1.0),
        row("sst2", "strip", 0.5),
        row("mnist", "mbds, evidence", 0.7),
        row("mnist", "activation_clustering", 0.1),
    ]
    head, _, *lines = summary(rows).splitlines()
    assert head == "| F2 | **MetaShield** | STRIP | MBDS | MBDS, evidence | MBDS as published |"
    assert lines == [
        "| mnist jumbo | **90.0** (25.0, 50.0) | – | – | **70.0** (25.0, 50.0) "
        "| **50.3** (49.1, 31.9) |",
        "| sst2 jumbo | – | **50.0** (25.0, 50.0) | – | – | – |",
    ]


def test_victims_are_shown_with_the_f2_of_whoever_suspects_what_obeys() -> None:
    def row(victim: int, success: float) -> dict[str, object]:
        return {
            "data": "mnist",
            "attack": "jumbo",
            "victim": victim,
            "benign_accuracy": 0.9,
            "attack_success": success,
            "redrawn": victim,
        }

    # Recall 0.5 at precision 1 is an F2 of 5 * 0.5 / 4.5, recall 1 one of 1; a victim counts once.
    rows = [row(0, 0.5), row(0, 0.5), row(1, 1.0)]
    *_, line = victims_table(rows).splitlines()
    assert line == "| mnist | jumbo | 2 | 1 | 90.0% | 75.0% | 77.8 |"


def test_models_are_shown_by_method_where_it_has_judged_any() -> None:
    rows = [
        {"method": "mntd", "task": "mnist", "kind": "jumbo", "auroc": 0.5},
        {"method": "meta_shield", "task": "cifar10", "kind": "jumbo", "auroc": 0.98765},
    ]
    assert auroc_table(rows).splitlines() == [
        "| AUROC | mnist jumbo | cifar10 jumbo |",
        "|---|---|---|",
        "| MetaShield (whole model) | – | 0.988 |",
        "| MNTD | 0.500 | – |",
    ]
