"""Pack the rounds that detectors are learned from and judged on, to be committed.

    python -m benchmarks.pack_rounds [--store runs/detector]

A federation in `benchmarks/rounds` is not played by `benchmarks.detector_results`. Without that
folder all are, and this command makes the folder anew: whoever changes a descriptor, or the
federations, does both.
"""

from __future__ import annotations

from benchmarks import detector_data as data
from benchmarks.described_rounds import pack


def main() -> None:
    """Pack what a store has of the training and of the evaluation."""
    store = data.store_parser(__doc__).parse_args().store
    for kind, parts in data.PACKED.items():
        tables = data.tables_of(store / kind, parts)
        if not tables:
            print(f"{store / kind} has no rounds; play some: make results-detector")
            continue
        pack(data.packed(kind), tables)
        size = data.packed(kind).stat().st_size / 1e6
        print(f"{data.packed(kind)}: {len(tables)} rounds, {size:.1f} MB")


if __name__ == "__main__":
    main()
