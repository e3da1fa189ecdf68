"""A process that appends batches to an outbox, beside others: `appending_site.py OUTBOX NAME BATCHES`.

Started by test_many_writers.py. It prints a line and waits for one, so that all begin at once, then prints
`first rows` of each receipt. A batch's release is `NAME/number`, and the score of its row i is i.
"""

from __future__ import annotations

import sys
from pathlib import Path

import msgspec

from edge_ai_assets.returns.outbox.outbox import Batch, Outbox
from edge_ai_assets_tests import blocks


def batch(name: str, number: int) -> Batch:
    """One to five rows in blocks of one or two."""
    rows = [({"inputs": {}}, float(row), row % 2 == 0, False) for row in range(1 + number % 5)]
    parts = [blocks.block(rows[start : start + 2]) for start in range(0, len(rows), 2)]
    return Batch(f"{name}/{number}", f"{name}/{number}", number, parts, name.encode())


def main(path: Path, name: str, batches: int) -> None:
    made = [batch(name, number) for number in range(batches)]
    with Outbox(path) as outbox:
        print("ready", flush=True)
        sys.stdin.readline()
        for number in range(batches):
            together = made[number : number + 1]
            if number % 10 == 9:
                together = [*together, msgspec.structs.replace(made[number - 1], blocks=[(1, blocks.TORN)])]
            receipt, *repeated = outbox.append(together)
            assert not receipt.repeated and all(each.repeated for each in repeated)
            print(receipt.first, receipt.rows)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
