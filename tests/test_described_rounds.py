"""What is kept of described rounds is what a detector reads of them."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks.described_rounds import digest_of, pack, unpack, unpacked
from fl_shield.detector.features import CHANNELS, FeatureSpec, features_of
from fl_shield.errors import StateError
from fl_shield.shadow.table import EpisodeTable, read_tables


def episode(run: str, number: int, clients: int, names: tuple[str, ...]) -> EpisodeTable:
    rng = np.random.default_rng([len(run), number, clients])
    raw = 5.0 + rng.standard_normal((clients, len(names))) * 10.0 ** rng.integers(-5, 5, len(names))
    return EpisodeTable(
        run.rpartition("-")[0], run, number, names, raw, rng.random(clients) < 0.3,
        np.arange(clients) + 7, {"harm": [0.25] * clients, "trigger": "word"},
    )  # fmt: skip


ROUNDS = [
    episode("texts-1", 1, 20, ("a", "b", "c")),
    episode("texts-1", 2, 19, ("a", "b", "c")),
    episode("images-01", 1, 6, ("a", "d")),
    episode("texts-002", 1, 1, ("a", "b", "c")),
]


def test_features_and_truth_are_those_of_the_rounds(tmp_path: Path) -> None:
    pack(tmp_path / "rounds.npz", ROUNDS)
    found = list(unpacked(tmp_path / "rounds.npz"))
    spec = FeatureSpec(("a", "b", "c", "d"), (1.0, 1e-3, 1e2, 1.0))
    assert len(found) == len(ROUNDS)
    for kept, whole in zip(found, ROUNDS, strict=True):
        assert (kept.domain, kept.run, kept.round_number) == (
            whole.domain, whole.run, whole.round_number
        )  # fmt: skip
        assert kept.facts == whole.facts
        np.testing.assert_array_equal(kept.malicious, whole.malicious)
        np.testing.assert_array_equal(kept.client_ids, whole.client_ids)
        (*found_z, found_rank), (*wanted_z, wanted_rank) = (
            np.split(features_of(spec, table.names, table.raw), CHANNELS, axis=1)
            for table in (kept, whole)
        )
        # A bfloat16 is right to one part in 256, and so are medians of them.
        np.testing.assert_allclose(found_z, wanted_z, atol=0.02)
        # Two of 19 or 20 that nearly tied now do, and share their ranks.
        np.testing.assert_allclose(found_rank, wanted_rank, atol=1.01 / 18)


def test_a_round_has_one_digest_before_and_after_and_another_if_it_is_described_otherwise(
    tmp_path: Path,
) -> None:
    pack(tmp_path / "rounds.npz", ROUNDS)
    found = [digest_of(table) for table in unpacked(tmp_path / "rounds.npz")]
    assert found == [digest_of(table) for table in ROUNDS]
    assert len(set(found)) == len(ROUNDS)
    moved = ROUNDS[0].raw.copy()
    moved[3, 1] *= 1.1
    assert digest_of(replace(ROUNDS[0], raw=moved)) != found[0]
    assert digest_of(replace(ROUNDS[0], malicious=~ROUNDS[0].malicious)) != found[0]


def test_a_federation_that_is_there_is_left_alone(tmp_path: Path) -> None:
    pack(tmp_path / "rounds.npz", ROUNDS)
    (tmp_path / "texts-1.safetensors").write_bytes(b"mine")
    unpack(tmp_path / "rounds.npz", tmp_path)
    assert (tmp_path / "texts-1.safetensors").read_bytes() == b"mine"
    (table,) = read_tables(tmp_path / "texts-002.safetensors")
    assert len(table) == 1
    assert not table.raw.any()  # a client alone is its own median


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    file = tmp_path / "rounds.npz"
    pack(file, ROUNDS)
    file.write_bytes(file.read_bytes()[:200])
    with pytest.raises(StateError, match=r"rounds\.npz is missing or damaged"):
        list(unpacked(file))
