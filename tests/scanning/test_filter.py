"""`fl-shield filter` from files to exit status, with a real model whose backdoor is known."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from fl_shield.errors import DataError
from fl_shield.simulations.cli import main
from fl_shield.simulations.filter_inputs import load_weights, read_samples
from tests.scanning._tasks import BackdooredPixels, images, with_pixel

MODEL = "tests.scanning._tasks:BackdooredPixels"


@pytest.fixture
def files(tmp_path: Path) -> dict[str, str]:
    """Clean samples, a mixed batch (first four clean, last four triggered) and the weights."""
    clean, labels = images(24)
    save_file({"inputs": clean, "labels": labels}, tmp_path / "clean.safetensors")
    new, _ = images(8, seed=5)
    new[4:] = with_pixel(images(8, seed=5)[0][::2])
    np.savez(tmp_path / "new.npz", inputs=(new.numpy() * 255).round().astype(np.uint8))
    save_file(BackdooredPixels().state_dict(), tmp_path / "net.safetensors")
    return {
        name: str(tmp_path / name) for name in ("clean.safetensors", "new.npz", "net.safetensors")
    }


def run(files: dict[str, str], *extra: str) -> int:
    where = ["--clean", files["clean.safetensors"], "--samples", files["new.npz"]]
    return main(["filter", "--model", MODEL, *where, *extra])


def test_triggered_inputs_are_found(
    files: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = tmp_path / "deep" / "found.json"
    weights = ["--weights", files["net.safetensors"]]
    assert run(files, "--scanner", "strip", *weights, "--json", str(found)) == 3
    report = json.loads(found.read_text())
    assert (report["scanner"], report["level"], report["clean_samples"]) == ("strip", "sample", 24)
    flags = [row["suspected"] for row in report["samples"]]
    assert flags[4:] == [True] * 4
    assert report["suspected"] == sum(flags)
    shown = capsys.readouterr().out
    assert f"{sum(flags)} of 8 samples suspected" in shown


def test_json_on_the_screen_is_json_alone(
    files: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(files, "--scanner", "strip", "--json", "-") == 3
    assert json.loads(capsys.readouterr().out)["version"] == 1


def test_nothing_suspected_is_status_0(files: dict[str, str], tmp_path: Path) -> None:
    save_file({"inputs": images(24)[0][:2]}, tmp_path / "same.safetensors")
    files = files | {"new.npz": str(tmp_path / "same.safetensors")}
    assert run(files, "--scanner", "strip", "--false-alarms", "0.05") == 0


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (["--scanner", "stripe"], r"Unknown scanner 'stripe'"),
        (["--scanner", "strip", "--detector", "x"], r"strip refuses its settings"),
        (["--scanner", "strip", "--false-alarms", "0.01"], r"at least 99 clean samples.*got 24"),
        (["--scanner", "spectral_signatures"], r"needs its labels, got none"),
        (["--scanner", "strip", "--model-file", "x.pt2"], r"either --model .* got both"),
        (["--scanner", "strip", "--weights", "none"], r"`--weights` to be a safetensors file"),
        (["--scanner", "strip", "--clean", "none"], r"`--clean` to be a folder of images"),
        (["--scanner", "strip", "--shadows", "2"], r"strip refuses its settings"),
        (["--scanner", "mbds", "--shadows", "0"], r"extractors.*1 or more, got 0"),
    ],
)
def test_bad_options_are_one_sentence(
    files: dict[str, str], extra: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    import re

    assert run(files, *extra) == 2
    assert re.search(message, capsys.readouterr().err)


def test_mbds_trains_models_like_the_deployed_one_and_keeps_them(
    files: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = tmp_path / "shadows"
    where = ["--clean", files["clean.safetensors"], "--samples", files["new.npz"]]
    given = ["filter", "--model", "tests.scanning._tasks:small_cnn", *where, "--scanner", "mbds"]
    given += ["--shadows", "2", "--store", str(store), "--json", "-"]
    torch.manual_seed(0)
    assert main(given) in (0, 3)
    first = json.loads(capsys.readouterr().out)
    assert (first["scanner"], len(first["samples"])) == ("mbds", 8)
    kept = {file.name: file.stat().st_mtime_ns for file in store.iterdir()}
    assert len(kept) == 2
    torch.manual_seed(0)  # the factory draws the deployed model, too
    main(given)
    assert json.loads(capsys.readouterr().out) == first
    assert {file.name: file.stat().st_mtime_ns for file in store.iterdir()} == kept


def test_mbds_needs_the_code_of_the_model(
    files: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    where = ["--clean", files["clean.safetensors"], "--samples", files["new.npz"]]
    assert main(["filter", "--model-file", "net.pt2", *where, "--scanner", "mbds"]) == 2
    assert "instead of --model-file" in capsys.readouterr().err


def test_texts_given_to_an_image_model(
    files: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_file({"inputs": torch.ones(8, 6, dtype=torch.int64)}, tmp_path / "t.safetensors")
    assert run(files | {"new.npz": str(tmp_path / "t.safetensors")}, "--scanner", "strip") == 2
    assert "to have the form of `--clean`, (1, 4, 4), got (6,)" in capsys.readouterr().err


def test_a_folder_of_images(tmp_path: Path) -> None:
    for name, value in (("a/1.png", 0), ("b/2.png", 255), ("b/3.png", 51)):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("L", (3, 2), value).save(tmp_path / name)
    samples = read_samples("--clean", tmp_path)
    assert samples.names == ("a/1.png", "b/2.png", "b/3.png")
    assert samples.inputs.shape == (3, 1, 2, 3)
    assert samples.inputs.amax(dim=(1, 2, 3)).tolist() == pytest.approx([0.0, 1.0, 0.2])
    assert samples.labels is not None
    assert samples.labels.tolist() == [0, 1, 1]
    assert read_samples("--clean", tmp_path / "b").labels is None
    Image.new("RGB", (3, 2)).save(tmp_path / "a" / "4.png")
    with pytest.raises(DataError, match="differ in size or colour"):
        read_samples("--clean", tmp_path)
    (tmp_path / "b" / "5.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"5\.png is no readable image"):
        read_samples("--clean", tmp_path / "b")


def test_files_of_another_form(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", images=np.zeros(3))
    with pytest.raises(DataError, match="must hold `inputs`.*it holds images"):
        read_samples("--samples", tmp_path / "x.npz")
    np.savez(tmp_path / "y.npz", inputs=np.zeros((3, 4)))
    with pytest.raises(DataError, match=r"token ids \(samples, length\), got '\(3, 4\) of float64"):
        read_samples("--samples", tmp_path / "y.npz")
    np.savez(tmp_path / "z.npz", inputs=np.full((3, 1, 2, 2), 7.0))
    with pytest.raises(DataError, match=r"floats in \[0, 1\]"):
        read_samples("--samples", tmp_path / "z.npz")
    np.savez(tmp_path / "p.npz", inputs=np.array([{}], dtype=object))
    with pytest.raises(DataError, match="plain arrays"):
        read_samples("--samples", tmp_path / "p.npz")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="holds no images"):
        read_samples("--samples", tmp_path / "empty")


def test_weights_must_be_the_models(tmp_path: Path) -> None:
    save_file({"other": torch.zeros(1)}, tmp_path / "w.safetensors")
    with pytest.raises(Exception, match=r"do not fit the model: missing head\.weight"):
        load_weights(BackdooredPixels(), tmp_path / "w.safetensors")
