"""Return packages of pump-station insights, in bytes and in rows a second.

- Bytes per million insights: the package files against gzipped JSON lines of the very same values.
- `pack` (policy, signed file, the outbox's record of each row) and `receive` (signature, digests, chain, a
  merge that counts nothing twice) against the plain way, which promises nothing: write gzipped JSON lines;
  read them and append them to a Delta table. The ratio is what the promises cost.
- The way home, `insights.derive` (rows from blocks, their kind), `pack`, and the outbox's record that it was
  sent, against what comes in: requests of one reading each, and 32 of them a commit as under load.

All scores are anomalies here, so each leaves, and so does what is derived from features that may leave.
There are no histograms and no feedback.

Why: the link of a ship carries kilobits, and a backlog of weeks has to drain through it.
"""

from __future__ import annotations

import gzip
import json
import time
from collections.abc import Iterator
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import blocks
import numpy as np
import pandas as pd
import pyarrow as pa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from measure import ROUNDS, scratch, side_by_side, tell

from edge_ai_assets import usecase as usecases
from edge_ai_assets.ml import features
from edge_ai_assets.readings import simulator
from edge_ai_assets.returns.egress.policy import Policy
from edge_ai_assets.returns.inbox import inbox
from edge_ai_assets.returns.outbox import insights
from edge_ai_assets.returns.outbox.outbox import Batch, Outbox
from edge_ai_assets.returns.package import packages
from edge_ai_assets.returns.package.packing import pack
from edge_ai_assets.scoring import batch
from edge_ai_assets.scoring.contract import Contract

PACKAGE_ROWS = 20_000
INGESTED = 640
"""Rows a round."""
SITE, RELEASE = "bergen", "sha256:" + "0" * 64
USECASE = usecases.load(usecases.BUNDLED / "pump-station.yaml")
CONTRACTS = {RELEASE: Contract(USECASE.name, features.inputs(USECASE), 0.5, "fault")}
KEY = Ed25519PrivateKey.from_private_bytes(bytes(32))


def main() -> None:
    with scratch() as folder, Outbox(folder / "outbox.db") as outbox:
        for scored in scores():
            outbox.append([scored])
        start = time.perf_counter()
        insights.derive(outbox, limit=ROUNDS * PACKAGE_ROWS)
        derived = (time.perf_counter() - start) / ROUNDS
        policy, spool = Policy(USECASE, bytes(32)), folder / "uplink" / SITE
        values = list(sent_values(outbox, policy))
        parts = (values[start : start + PACKAGE_ROWS] for start in count(0, PACKAGE_ROWS))
        paths = (folder / f"{number}.jsonl.gz" for number in count())

        def seal() -> None:
            pack(outbox, SITE, policy, CONTRACTS, KEY, spool, at=1_760_000_000_000_000, limit=PACKAGE_ROWS)

        packing = side_by_side({"pack": seal, "plain": lambda: write_lines(next(parts), next(paths))})
        sealed, plain = sorted(spool.glob("*.zip")), sorted(folder.glob("*.gz"))
        inside = packages.read(sealed[0], [KEY.public_key()]).insights.to_pylist()
        told = [{name: value for name, value in row.items() if value is not None} for row in values]
        assert [as_line(row) for row in inside] == told[:PACKAGE_ROWS], "not the same values"
        sending = side_by_side({"uploaded": partial(record_sent, outbox)})
        coming_in = side_by_side(
            {str(size): partial(ingest, folder / f"{size}.db", size) for size in (1, 32)}
        )

        tables = (folder / f"tables-{number}" for number in count())
        receiving = side_by_side(
            {
                "receive": lambda: receive(spool.parent, next(tables)),
                "plain": lambda: append(plain, next(tables)),
            }
        )
        sizes = [sum(path.stat().st_size for path in paths) for paths in (sealed, plain)]
    rows = ROUNDS * PACKAGE_ROWS
    drained = PACKAGE_ROWS / (derived + packing["pack"] + sending["uploaded"])
    ingested = {size: INGESTED / seconds for size, seconds in coming_in.items()}
    tell(
        "packages",
        {
            "rows_a_package": PACKAGE_ROWS,
            "values_a_row": len(values[0]),
            "package_bytes_per_million": sizes[0] * 1_000_000 // rows,
            "jsonl_gz_bytes_per_million": sizes[1] * 1_000_000 // rows,
            "pack_rows_per_second": PACKAGE_ROWS / packing["pack"],
            "write_jsonl_gz_rows_per_second": PACKAGE_ROWS / packing["plain"],
            "receive_rows_per_second": rows / receiving["receive"],
            "append_jsonl_gz_rows_per_second": rows / receiving["plain"],
            "derive_rows_per_second": PACKAGE_ROWS / derived,
            "record_sent_rows_per_second": PACKAGE_ROWS / sending["uploaded"],
            "drain_rows_per_second": drained,
            "ingest_commits_of_1_rows_per_second": ingested["1"],
            "ingest_commits_of_32_rows_per_second": ingested["32"],
        },
        {
            "package_to_jsonl_gz_bytes": sizes[0] / sizes[1],
            "pack_to_plain_speed": packing["plain"] / packing["pack"],
            "receive_to_plain_speed": receiving["plain"] / receiving["receive"],
            "drain_to_ingest_of_1_speed": drained / ingested["1"],
            "drain_to_ingest_of_32_speed": drained / ingested["32"],
        },
    )


def scores() -> Iterator[Batch]:
    """Enough simulated readings for all packages, scored as if each were an anomaly."""
    raw = simulator.simulate(SITE, seed=1, shifts=ROUNDS * PACKAGE_ROWS // simulator.ROWS)
    ours = {"station": "_site", "shift": "_run", "time": "_time"}
    frame = raw.rename(columns=ours).assign(_row=raw.groupby("shift").cumcount())
    made = features.compute(frame, USECASE)
    inputs = {item.name: item.kind for item in features.inputs(USECASE)}
    rng = np.random.default_rng(1)
    for start in range(0, len(made), batch.CUT.slice):
        part = made.iloc[start : start + batch.CUT.slice]
        columns = {name: pd.to_numeric(part[name], errors="coerce").to_numpy() for name in inputs}
        texts = {name: part[name].tolist() for name, kind in inputs.items() if kind == "category"}
        context = {name: part[name].astype(str).tolist() for name in ("_time", "_run")}
        given = rng.uniform(0.5, 1, len(part))
        at = 1_760_000_000_000_000 + start * 1_000
        yield Batch(None, RELEASE, at, list(blocks.of(columns, texts, given, context)))


def record_sent(outbox: Outbox) -> None:
    outbox.uploaded(outbox.unsent()[0].number, 1_760_000_000_000_000)


def ingest(path: Path, size: int) -> None:
    """Requests of one reading each, so many a commit."""
    columns = {item.name: np.ones(1) for item in features.inputs(USECASE)}
    context = {"_time": ["2026-03-01T00:04:00"], "_run": ["bergen-000001"]}
    (one,) = blocks.of(columns, {}, np.ones(1), context)
    made = Batch(None, RELEASE, 1_760_000_000_000_000, [one])
    with Outbox(path) as outbox:
        for _ in range(INGESTED // size):
            outbox.append([made] * size)


def sent_values(outbox: Outbox, policy: Policy) -> Iterator[dict[str, Any]]:
    """What the policy lets out, row by row."""
    for row in outbox.rows(1, ROUNDS * PACKAGE_ROWS):
        values = policy.row(row, CONTRACTS[RELEASE])
        assert isinstance(values, dict)
        own = {"sequence": row.sequence, "scored_at": row.scored_at, "release": row.release, "kind": row.kind}
        yield own | values


def as_line(row: dict[str, Any]) -> dict[str, Any]:
    """An insight of a package in the form of `sent_values`."""
    own = {"_score": row.pop("score"), "_predicted": row.pop("predicted")}
    moment = pd.Timestamp(row.pop("scored_at")).value // 1_000
    return {**json.loads(row.pop("fields")), **row, **own, "scored_at": moment}


def write_lines(rows: list[dict[str, Any]], path: Path) -> None:
    with gzip.open(path, "wt", encoding="utf-8") as file:
        file.writelines(f"{json.dumps(row, ensure_ascii=False)}\n" for row in rows)


def receive(uplink: Path, tables: Path) -> None:
    tables.mkdir()
    done = inbox.receive(uplink, tables, {SITE: [KEY.public_key()]}, tables / "refused")
    assert done.insights == ROUNDS * PACKAGE_ROWS


def append(files: list[Path], tables: Path) -> None:
    from deltalake import write_deltalake

    for path in files:
        with gzip.open(path, "rt", encoding="utf-8") as file:
            write_deltalake(tables, pa.Table.from_pylist([json.loads(line) for line in file]), mode="append")


if __name__ == "__main__":
    main()
