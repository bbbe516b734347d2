"""`fl-shield shadow` and `fl-shield meta-train`: from nothing to a detector, by the real CLI."""

import json
import os
from pathlib import Path

import numpy as np
import pytest

from fl_shield.descriptors.table import DescriptorTable
from fl_shield.detector import MetaDetector, load_detector
from fl_shield.shadow.table import read_tables
from fl_shield.simulations.cli import main
from fl_shield.simulations.composing import domain_files
from fl_shield.simulations.shadow import load_domain

TINY = [
    "ranges.cohort=[5]", "ranges.samples=[30,40]", "ranges.rounds=1", "ranges.epochs=[1,1]",
    "ranges.attacker_share=[0.3,0.4]", "ranges.clean_share=0.0",
]  # fmt: skip
QUICK = ["steps=20", "networks=2", "rounds=4", "calibrate=false", "tracking=none"]
SHARED = Path(os.environ.get("FL_SHIELD_DATA", Path(__file__).parents[3] / "shared" / "data"))


@pytest.mark.slow
def test_from_nothing_to_a_detector(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = f"store={tmp_path / 'store'}"
    shadow = ["shadow", store, "domains=[digits]", "runs=3", *TINY]
    assert main([*shadow, "workers=2"]) == 0
    files = sorted((tmp_path / "store" / "tables").iterdir())
    assert [f.name[:-20] for f in files] == ["digits"] * 3
    assert not list((tmp_path / "store" / "episodes").glob("*/round-*")), "weights are not kept"
    before = {file: file.read_bytes() for file in files}
    assert main([*shadow, "workers=1"]) == 0
    assert "3 of them finished earlier" in capsys.readouterr().out
    assert {file: file.read_bytes() for file in files} == before

    out = tmp_path / "detector"
    train = ["meta-train", f"tables={tmp_path / 'store' / 'tables'}", f"out={out}", *QUICK]
    assert main(train) == 0
    detector = load_detector(out)
    assert isinstance(detector, MetaDetector)
    card = json.loads((out / "detector.json").read_text(encoding="utf-8"))
    assert card["federations"] == {"digits": 3}
    assert card["command"].startswith("fl-shield meta-train tables=")
    assert card["training"]["steps"] == 20
    assert card["attacked_federations"] == 3
    table = read_tables(files[0])[0]
    scores = detector.score(DescriptorTable(table.names, table.raw, table.raw))
    assert np.isfinite(scores).all()
    # Trained again from its checkpoints, and in two processes (whose sums may be split otherwise
    # over threads), it is the same.
    for again in ([], ["workers=2", "resume=false"]):
        assert main([*train, *again]) == 0
        found = load_detector(out).score(DescriptorTable(table.names, table.raw, table.raw))
        np.testing.assert_allclose(found, scores, rtol=1e-6)
    assert main([*train, "calibrate=true"]) == 2
    assert "two data sets or more" in capsys.readouterr().err
    # Other settings do not go on from these checkpoints.
    assert main([*train, "steps=21"]) == 2
    assert "other settings" in capsys.readouterr().err


@pytest.mark.slow
def test_evaluations_have_seeds_and_statistics_of_their_own(tmp_path: Path) -> None:
    settings = [f"store={tmp_path}", "domains=[digits]", "runs=1", "kind=evaluation", "workers=1"]
    assert main(["shadow", *settings, *TINY, "clean_samples=4"]) == 0
    (file,) = (tmp_path / "tables-4-samples").iterdir()
    assert file.name == "digits-1000000.safetensors"
    (table,) = read_tables(file)
    assert table.facts["clean_samples"] == 4
    assert "flare" in table.facts["rivals"]

    alone = [*settings, *TINY, f"store={tmp_path / 'alone'}", "clean_samples=4", "rivals=false"]
    assert main(["shadow", *alone]) == 0
    (same,) = read_tables(next((tmp_path / "alone" / "tables-4-samples").iterdir()))
    assert "rivals" not in same.facts
    assert np.array_equal(same.raw, table.raw)

    assert main(["shadow", *settings, *TINY, "clean_samples=0"]) == 0
    (without,) = read_tables(next((tmp_path / "tables-0-samples").iterdir()))
    assert without.facts["clean_samples"] == 0
    assert without.names == table.names
    assert np.isfinite(without.raw).all()
    assert "fltrust" not in without.facts["rivals"], "it trains on labelled samples"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["shadow", "domains=[digit]"], "digits"),
        (["shadow", "kind=evaluate"], "evaluation"),
        (["shadow", "runs=0"], "`shadow.runs` to be 1 or more"),
        (["shadow", "rivals=none"], "`shadow.rivals` to be true, false or null"),
        (["shadow", "keep_weights=yes"], "`shadow.keep_weights` to be true or false"),
        (["shadow", "ranges.round=3"], "rounds"),
        (["shadow", "domains=digits"], "`shadow.domains` to be a list, got 'digits'. Write"),
        (["shadow", "leave_out=*/jumbo"], "`shadow.leave_out` to be a list, got '*/jumbo'"),
        (["shadow", "ranges.oddities=tiny"], "`ranges.oddities` to be a list, got 'tiny'"),
        (["shadow", "ranges.alpha=0.5"], "`ranges.alpha` to be a list, got 0.5"),
        (["shadow", "ranges.rounds=[1,2]"], "`ranges.rounds` to be one number, got [1, 2]"),
        (["shadow", "run=3"], "runs"),
        (["meta-train", "tables=/nowhere/tables"], "no tables in /nowhere/tables"),
        (["meta-train", "false_alarms=2"], "between 0 and 1"),
        (["meta-train", "algorithm=maml"], "fomaml"),
        (["meta-train", "workers=0"], "`meta_train.workers` to be 1 or more"),
    ],
)
def test_mistakes_get_one_sentence(
    arguments: list[str], sentence: str, capsys: pytest.CaptureFixture[str], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    assert sentence in capsys.readouterr().err


def test_data_that_are_files_need_a_folder(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("FL_SHIELD_DATA", raising=False)
    monkeypatch.chdir(tmp_path)
    assert main(["shadow", "domains=[mnist]", "workers=1"]) == 2
    assert "Set data_root=DIR" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["shadow", "meta-train"])
def test_settings_are_shown(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([command, "--cfg", "seed=7"]) == 0
    assert "seed: 7" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(domain_files()))
def test_every_domain_builds_its_models(name: str) -> None:
    text = domain_files()[name].read_text(encoding="utf-8")
    root = str(SHARED) if SHARED.is_dir() else None
    if "${data_root}" in text and root is None:
        pytest.skip("the data set is not here")
    domain = load_domain(name, root)
    assert domain.name == name
    spec = domain.task.spec
    for architecture in domain.architectures.values():
        model = architecture.model(spec)
        assert sum(p.numel() for p in model.parameters()) > 1000
