"""Numbers in canonical form: the same values, in a dtype that harms nobody else's."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fl_shield.canonical import canonical, canonical_dtype


@pytest.mark.parametrize(
    ("sent", "reference", "wanted"),
    [
        ("<f4", "<f4", "f4"),
        (">f4", "<f4", "f4"),
        ("f4", "f8", "f4"),  # the global model drifted, the client did not
        ("f2", "f4", "f4"),
        ("f2", "f8", "f8"),
        ("f2", "f2", "f2"),
        ("i8", "f4", "f4"),
        ("b1", "f4", "f4"),
        ("f8", "f4", "f8"),
        ("i8", "i8", "i8"),
        (">i4", "i8", "i4"),
        ("f4", "i8", "f4"),
        ("f2", "i8", "f8"),
    ],
)
def test_dtypes(sent: str, reference: str, wanted: str) -> None:
    found = canonical_dtype(np.dtype(sent), np.dtype(reference))
    assert found == np.dtype(wanted)
    assert found.isnative


@given(st.lists(st.integers(-1000, 1000), max_size=5), st.sampled_from([">f4", "f2", "i4", ">f8"]))
def test_values_stay(values: list[int], sent: str) -> None:
    array = np.array(values, dtype=sent)
    np.testing.assert_array_equal(canonical(array, np.dtype("f4")), array)


def test_what_is_canonical_is_not_copied() -> None:
    array = np.ones(3, dtype=np.float32)
    assert canonical(array, np.dtype("f4")) is array


def test_what_overflows_is_infinite_and_so_rejected() -> None:
    array = np.array([10**6])
    assert np.isinf(canonical(array, np.dtype("f2"))).all()
