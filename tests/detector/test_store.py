"""Detectors on disk: what is read is what was written, and every damage is one clear sentence."""

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import fl_shield.detector
from fl_shield.descriptors.standardise import standardise
from fl_shield.descriptors.table import DescriptorTable
from fl_shield.detector import MetaDetector, RobustRule, default_detector
from fl_shield.detector.features import FeatureSpec
from fl_shield.detector.set_network import SetNetwork
from fl_shield.detector.store import CARD, WEIGHTS, load_detector, save_detector
from fl_shield.errors import ConfigurationError, StateError

SPEC = FeatureSpec(("a", "b"), (1.0, 0.1 + 0.2))
FACTS = {
    "name": "tiny",
    "domains": ["digits"],
    "calibration": {"offset": 0.5, "scale": 2.0, "threshold": 1.25},
}
SIZE = {"hidden": 8, "pools": 1, "heads": 4, "expert": False}
MAX_SHIPPED_BYTES = 5_000_000


def networks() -> list[SetNetwork]:
    torch.manual_seed(3)
    return [SetNetwork(8, hidden=8, pools=1), SetNetwork(8, hidden=12, heads=2)]


def table() -> DescriptorTable:
    raw = np.random.default_rng(0).standard_normal((7, 2))
    return DescriptorTable(("a", "b"), raw, standardise(raw))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return save_detector(tmp_path / "detector", networks(), SPEC, FACTS)


def edit(folder: Path, **entries: object) -> None:
    card = json.loads((folder / CARD).read_text())
    (folder / CARD).write_text(json.dumps(card | entries))


def test_a_loaded_detector_is_the_saved_one(folder: Path) -> None:
    before = torch.random.get_rng_state()
    detector = load_detector(folder)
    assert torch.equal(torch.random.get_rng_state(), before)  # loading draws no random numbers
    saved = MetaDetector(networks(), SPEC, detector.calibration)
    np.testing.assert_array_equal(detector.score(table()), saved.score(table()))
    np.testing.assert_array_equal(detector.contributions(table()), saved.contributions(table()))
    assert detector.spec == SPEC
    digest = hashlib.sha256((folder / WEIGHTS).read_bytes()).hexdigest()
    assert detector.name == f"tiny {digest[:8]}"  # evidence of another `tiny` is told apart
    assert detector.threshold == 1.25
    assert detector.card["domains"] == ["digits"]


def test_saving_replaces_and_leaves_nothing_behind(folder: Path) -> None:
    save_detector(folder, networks()[:1], SPEC)
    assert sorted(path.name for path in folder.iterdir()) == sorted([CARD, WEIGHTS])
    assert len(load_detector(folder).networks) == 1


def test_a_detector_saved_again_is_the_same_file(folder: Path) -> None:
    detector = load_detector(folder)
    for _ in range(20):  # safetensors alone would shuffle three entries
        save_detector(folder.with_name("again"), detector.networks, detector.spec, FACTS)
        again = folder.with_name("again")
        assert (again / WEIGHTS).read_bytes() == (folder / WEIGHTS).read_bytes()
        assert (again / CARD).read_bytes() == (folder / CARD).read_bytes()


def test_what_cannot_be_loaded_is_not_written(tmp_path: Path) -> None:
    target = tmp_path / "detector"
    with pytest.raises(ConfigurationError, match="'sha256' as well"):
        save_detector(target, networks(), SPEC, {"sha256": "0"})
    with pytest.raises(ConfigurationError, match="as JSON"):
        save_detector(target, networks(), SPEC, {"when": object()})
    with pytest.raises(ConfigurationError, match="calibration.scale"):
        save_detector(target, networks(), SPEC, {"calibration": {"scale": -1.0}})
    with pytest.raises(ConfigurationError, match="8 features"):
        save_detector(target, networks(), FeatureSpec(("a",), (1.0,)))
    assert not target.exists()


def test_a_folder_without_a_detector(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="a folder with detector.json"):
        load_detector(tmp_path)


@pytest.mark.parametrize("share", [0.0, 0.001, 0.3, 0.99])
def test_truncated_weights(folder: Path, share: float) -> None:
    content = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(content[: int(share * len(content))])
    with pytest.raises(StateError, match=r"detector.safetensors is missing or damaged"):
        load_detector(folder)


def test_missing_weights(folder: Path) -> None:
    (folder / WEIGHTS).unlink()
    with pytest.raises(StateError, match="detector.safetensors is missing or damaged"):
        load_detector(folder)


def test_a_changed_byte_in_the_weights(folder: Path) -> None:
    content = bytearray((folder / WEIGHTS).read_bytes())
    content[-1] ^= 1
    (folder / WEIGHTS).write_bytes(bytes(content))
    with pytest.raises(StateError, match="SHA-256"):
        load_detector(folder)


def test_weights_of_another_version(folder: Path) -> None:
    tensors = load_file(folder / WEIGHTS)
    save_file(tensors, folder / WEIGHTS, {"format": "fl_shield.detector", "version": "99"})
    with pytest.raises(StateError, match=r"detector.safetensors has version 99; this .* reads 3"):
        load_detector(folder)
    save_file(tensors, folder / WEIGHTS)
    with pytest.raises(StateError, match=r"detector.safetensors is no detector"):
        load_detector(folder)


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"version": 2}, r"detector.json has version 2; this fl_shield reads 3"),
        ({"format": "other"}, "is no detector of fl_shield"),
        ({"sha256": "0" * 64}, "SHA-256 is not the one in the card"),
        ({"columns": ["a", "c"]}, "columns and units are not those"),
        ({"columns": ["b", "a"]}, "columns and units are not those"),
        ({"columns": ["a"]}, "1 columns and 2 units"),
        ({"columns": 3}, "no lists"),
        ({"units": [1.0, 0.4]}, "columns and units are not those"),
        ({"units": [1.0, -1.0]}, "a unit is not a number above 0"),
        ({"units": [1.0, None]}, "no lists"),
        ({"calibration": {"offset": 0.0, "scale": 0.0}}, "calibration.scale"),
        ({"calibration": {"offset": "high"}}, "calibration.offset"),
        ({"calibration": {"shift": 1.0}}, "needs a `calibration`"),
        ({"calibration": 3}, "needs a `calibration`"),
        ({"networks": [SIZE]}, "does not fit"),
        ({"networks": [SIZE] * 2}, "does not fit"),
        ({"networks": [{**SIZE, "heads": 3}] * 2}, "does not fit"),
        ({"networks": [{"hidden": 8, "pools": 1, "expert": False}] * 2}, "does not fit"),
        ({"networks": []}, "does not fit"),
        ({"networks": [{**SIZE, "hidden": -8}] * 2}, "does not fit"),
        ({"networks": 5}, "does not fit"),
        ({"networks": [5]}, "does not fit"),
    ],
)
def test_cards_that_do_not_match(folder: Path, entries: dict[str, object], message: str) -> None:
    edit(folder, **entries)
    with pytest.raises(StateError, match=message) as caught:
        load_detector(folder)
    assert "\n" not in str(caught.value)


def test_cards_that_are_no_cards(folder: Path) -> None:
    for content, message in (("{", "no JSON"), ("[]", "no card"), ("{}", "no detector")):
        (folder / CARD).write_text(content)
        with pytest.raises(StateError, match=message):
            load_detector(folder)


def test_a_card_that_lacks_an_entry(folder: Path) -> None:
    card = json.loads((folder / CARD).read_text())
    del card["units"]
    (folder / CARD).write_text(json.dumps(card))
    with pytest.raises(StateError, match="has no 'units'"):
        load_detector(folder)


def test_an_expert_is_one_again(tmp_path: Path) -> None:
    torch.manual_seed(5)
    expert = SetNetwork(8, hidden=8, reads=torch.tensor([0.0, 1.0] * 4))
    nets = [*networks(), expert]
    detector = load_detector(save_detector(tmp_path / "detector", nets, SPEC))
    assert [network.reads is None for network in detector.networks] == [True, True, False]
    np.testing.assert_array_equal(detector.score(table()), MetaDetector(nets, SPEC).score(table()))


def test_weights_that_are_not_finite(tmp_path: Path) -> None:
    nets = networks()
    with torch.no_grad():
        nets[0].attention.weight[0, 0] = float("nan")
    folder = save_detector(tmp_path / "detector", nets, SPEC)
    with pytest.raises(StateError, match="a weight is not finite"):
        load_detector(folder)


def test_the_default_detector(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fl_shield.detector, "SHIPPED", tmp_path / "none")
    assert isinstance(default_detector(), RobustRule)
    monkeypatch.setattr(fl_shield.detector, "SHIPPED", folder)
    assert isinstance(default_detector(), MetaDetector)
    (folder / WEIGHTS).unlink()
    with pytest.raises(StateError):
        default_detector()


def test_the_shipped_detector_is_small_and_loads() -> None:
    shipped = fl_shield.detector.SHIPPED
    if not (shipped / CARD).is_file():
        assert isinstance(default_detector(), RobustRule)
        return
    assert sum(file.stat().st_size for file in shipped.iterdir()) <= MAX_SHIPPED_BYTES
    assert isinstance(default_detector(), MetaDetector)


def test_a_shield_with_a_broken_detector_is_not_built(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from flwr.serverapp.strategy import FedAvg

    from fl_shield.strategies import MetaShield

    monkeypatch.setattr(fl_shield.detector, "SHIPPED", folder)
    model, probes = torch.nn.Linear(4, 3), torch.rand(16, 4)
    assert MetaShield(FedAvg(), model, probes)._shield_core.judge.policy.threshold == 1.25
    broken = folder.with_name("broken")
    shutil.copytree(folder, broken)
    edit(broken, version=1)
    monkeypatch.setattr(fl_shield.detector, "SHIPPED", broken)
    with pytest.raises(StateError, match="version 1"):
        MetaShield(FedAvg(), model, probes)
