"""`fl-shield audit --clean`: whole models from files, judged in this process."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import save_file

from fl_shield.data.task import TaskSpec
from fl_shield.errors import ConfigurationError
from fl_shield.scanning.model_audit import judge_models
from fl_shield.simulations.audit_models import Choices, default_scanner
from fl_shield.simulations.cli import main
from tests.scanning.models import _victims

MODEL = ["--model", "tests.scanning.models._victims:net"]


def files(folder: Path) -> list[str]:
    """Write a clean and a backdoored model and the defender's samples; return the options."""
    weights = []
    for name, seed, backdoored in (("clean", 0, False), ("bad", 10, True)):
        file = folder / f"{name}.safetensors"
        save_file(_victims.victim(seed, backdoored).state_dict(), file)
        weights.append(str(file))
    clean = _victims.held(64).clean
    np.savez(folder / "clean.npz", inputs=clean.inputs, labels=clean.labels)  # type: ignore[arg-type]
    return [*MODEL, "--weights", *weights, "--clean", str(folder / "clean.npz")]


def test_the_backdoored_one_of_two_models_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["audit", *files(tmp_path), "--scanner", "neural_cleanse", "--shadows", "0"]
    status = main([*command, "--json", str(tmp_path / "found.json")])
    report = json.loads((tmp_path / "found.json").read_text(encoding="utf-8"))
    clean, bad = report["models"]
    assert bad["scanners"][0]["score"] > clean["scanners"][0]["score"]
    assert bad["scanners"][0]["threshold"] == 2.0
    assert report["suspects"] == [str(tmp_path / "bad.safetensors")]
    assert status == 3
    shown = capsys.readouterr().out
    assert "1 of 2 models suspected" in shown
    assert "as published" in shown


def test_the_default_scanner_fits_the_task() -> None:
    held = _victims.held(48)
    assert default_scanner(held) == "meta_shield_model"
    with pytest.raises(ConfigurationError, match="For texts name one: --scanner mntd"):
        default_scanner(replace(held, spec=TaskSpec("text", (8,), 4, 30)))


def test_shadows_are_trained_where_there_is_no_better_threshold() -> None:
    held = _victims.held(48)
    assert Choices().shadows_for(held, ["meta_shield_model"]) == 0
    assert Choices(false_alarms=0.1).shadows_for(held, ["meta_shield_model"]) == 19
    assert Choices().shadows_for(held, ["meta_shield_model", "df_tnd"]) == 19
    assert Choices(shadows=21).shadows_for(held, ["meta_shield_model"]) == 21
    assert Choices().shadows_for(replace(held, architecture=None), ["df_tnd"]) == 0


def test_several_scanners_become_an_ensemble_calibrated_on_shadows() -> None:
    models = [_victims.victim(0, backdoored=False)]
    found = judge_models(
        models, _victims.held(48), ["df_tnd", "meta_shield_model"], shadows=3, false_alarms=0.25
    )
    assert [j.scanner for j in found] == ["df_tnd", "meta_shield_model", "ensemble"]
    assert all(j.calibrated for j in found)
    assert all(j.scores.shape == (1,) for j in found)


def test_what_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = files(tmp_path)
    for command, sentence in (
        (["audit"], "Nothing to audit"),
        (["audit", str(tmp_path), "--weights", "y"], "--weights goes with --clean PATH or a run"),
        (["audit", "x", "--scanner", "mntd"], "`audit` to be a run folder, a folder of captures"),
        (["audit", "x", *options], "Give one or the other"),
        (["audit", *options[2:]], "either --model module:factory or --model-file FILE"),
        (
            ["audit", *options, "--probes", "x"],
            "--probes does not go with the audit of a whole model",
        ),
        (["audit", *options, "--scanner", "strip"], "judges samples, not models"),
        (["audit", *options, "--scanner", "mntf"], "Did you mean 'mntd'"),
        (["audit", *options, "--shadows", "5"], "at least 19 shadow models"),
    ):
        assert main(command) == 2
        assert sentence in " ".join(capsys.readouterr().err.split())
    with pytest.raises(ConfigurationError, match="one or more, each once"):
        judge_models([], _victims.held(48), ["mntd", "mntd"])


def test_the_final_models_of_a_run_are_judged(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = ["tracking=none", "engine=in_process", "rounds=1", "num_clients=4", "attackers=1"]
    settings += ["arms=[clean,undefended]", "probes.num_samples=32", "warm_start.epochs=1"]
    settings += [f"output_root={tmp_path}", "run_name=run"]
    assert main(["simulate", *settings]) == 0
    capsys.readouterr()
    run = tmp_path / "run"
    assert not (run / "audit.json").exists(), "nobody asked for a scan"
    hint = f"fl-shield audit {run}"
    assert hint in (run / "report.html").read_text(encoding="utf-8")

    command = ["audit", str(run), "--scanner", "df_tnd", "strip", "--shadows", "0"]
    assert main([*command, "--json", str(tmp_path / "same.json")]) in (0, 3)
    shown = capsys.readouterr().out
    report = json.loads((run / "audit.json").read_text(encoding="utf-8"))
    assert report == json.loads((tmp_path / "same.json").read_text(encoding="utf-8"))
    assert (report["format"], report["version"]) == ("fl_shield.final_models", 1)
    assert [model["name"] for model in report["models"]] == ["clean", "undefended"]
    assert [model["round"] for model in report["models"]] == [1, 1]
    assert report["clean_samples"] == 32
    for model in report["models"]:
        assert [one["scanner"] for one in model["scanners"]] == ["df_tnd"]
        (inputs,) = model["inputs"]
        assert (inputs["scanner"], inputs["clean"], inputs["triggered"]) == ("strip", 64, 64)
        assert f"{100 * inputs['found']:.1f} % of 64" in shown

    assert main(["report", str(run)]) == 0
    page = (run / "report.html").read_text(encoding="utf-8")
    assert hint not in page
    score = report["models"][0]["scanners"][0]["score"]
    assert f"<td>{score:+.2f}</td>" in page

    for extra, sentence in (
        (["--weights", "x"], "--weights does not go with a run folder"),
        (["--scanner", "spectral_signatures"], "judges a training set"),
        (["--scanner", "strip", "strip"], "`--scanner` to be different scanners"),
        (["--shadows", "-1"], "`--shadows` to be 0 or more"),
        (["--false-alarms", "2"], "`--false-alarms` to be between 0 and 1"),
    ):
        assert main([*command, *extra]) == 2
        assert sentence in " ".join(capsys.readouterr().err.split())


@pytest.mark.slow
def test_a_run_scans_its_final_model_when_it_is_told_to(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _images(tmp_path / "images", classes=3)
    settings = ["data=image_folder", f"data.root={tmp_path / 'images'}", "data.image_size=8"]
    settings += ["model=mlp", "trigger.size=2", "tracking=none", "engine=in_process", "rounds=2"]
    settings += ["num_clients=4", "attackers=1", "arms=[undefended]", "probes.num_samples=48"]
    settings += [f"output_root={tmp_path}", "run_name=run", "scan_final_model=true"]
    assert main(["simulate", *settings]) == 0
    run = tmp_path / "run"
    assert f"Findings on the final models: {run / 'audit.json'}." in capsys.readouterr().out
    report = json.loads((run / "audit.json").read_text(encoding="utf-8"))
    (model,) = report["models"]
    assert (model["name"], model["round"]) == ("undefended", 2)
    assert [one["scanner"] for one in model["scanners"]] == ["meta_shield_model"]
    assert [one["scanner"] for one in model["inputs"]] == ["meta_shield"]
    page = (run / "report.html").read_text(encoding="utf-8")
    assert 'id="final-models"' in page
    assert "plot-final_models" in page
    before = (run / "audit.json").stat().st_mtime_ns
    assert main(["simulate", "--resume", str(run)]) == 0
    assert (run / "audit.json").stat().st_mtime_ns == before, "what is there is not done again"


def _images(folder: Path, classes: int) -> None:
    """Write scikit-learn's digits of the first classes as a folder of images a class."""
    from PIL import Image
    from sklearn.datasets import load_digits

    digits = load_digits()
    for number, (pixels, label) in enumerate(zip(digits.images, digits.target, strict=True)):
        if label < classes:
            place = folder / str(label)
            place.mkdir(parents=True, exist_ok=True)
            Image.fromarray((pixels * 15.9).astype(np.uint8)).save(place / f"{number}.png")
