"""Lineage events of made-up sites, the table they are merged into, and what Dagster's log shows of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any
from uuid import UUID

import dagster as dg
import msgspec
import pyarrow as pa

from edge_ai_assets import eventlog
from edge_ai_assets.azure.replay import SITE
from edge_ai_assets.returns.inbox import tables
from edge_ai_assets.returns.package import lineage
from edge_ai_assets.returns.package.lineage import Check, Event

AT = 1_760_000_000_000_000
MINUTE = 60_000_000
STEPS: tuple[tuple[str, str | None], ...] = (
    ("site/release", None),
    ("site/deployment", None),
    ("site/deployment", "serving"),
    ("site/scores", None),
    ("site/insights", None),
    ("site/egress", None),
    ("site/upload", None),
    ("site/upload", "conservation"),
)
"""What a site's run does, in turn: an asset, or one of its checks."""


def run_id(site: str, number: int) -> str:
    return str(UUID(bytes=f"{site[:8]:<8}{number:08}".encode()))


def event(
    site: str,
    n: int,
    asset: str,
    *,
    check: str | None = None,
    passed: bool = True,
    kind: str = "",
    **metadata: Any,
) -> Event:
    return Event(
        n=n,
        kind="check" if check else kind or "materialization",  # type: ignore[arg-type]
        asset=tuple(asset.split("/")),
        partition=site,
        at=AT + n * MINUTE,
        run=run_id(site, n // len(STEPS)),
        job="score_sites",
        metadata=metadata,
        check=Check(check, passed, "WARN", "all 1 sites serve" if check == "serving" and passed else "")
        if check
        else None,
    )


def life(site: str, length: int, failing: Iterable[int] = ()) -> list[Event]:
    """The first events of a site's life; the checks whose numbers are in `failing` fail."""
    made = []
    bad = set(failing)
    for n in range(1, length + 1):
        asset, check = STEPS[n % len(STEPS)]
        metadata = (
            {}
            if check or asset != "site/deployment"
            else {"release": n // len(STEPS), "image": f"sha256:{n}"}
        )
        made.append(event(site, n, asset, check=check, passed=n not in bad, **metadata))
    return made


def table(events: Sequence[Event], package: int = 1, imported_at: int = AT + 10**12) -> pa.Table:
    """Rows of the lineage table, as the inbox makes them."""
    schema = tables.schemas()["lineage"]
    columns: dict[str, Any] = {
        "site": [one.partition for one in events],
        "n": [one.n for one in events],
        "kind": [one.kind for one in events],
        "asset": [one.key for one in events],
        "partition": [one.partition for one in events],
        "at": [one.at for one in events],
        "run": [one.run for one in events],
        "job": [one.job for one in events],
        "metadata": [msgspec.json.encode(one.metadata, order="sorted").decode() for one in events],
        "check": [one.check and msgspec.json.encode(one.check, order="sorted").decode() for one in events],
        "package": [package] * len(events),
        "imported_at": [imported_at] * len(events),
    }
    empty = [None] * len(events)
    return pa.table([pa.array(columns.get(field.name, empty), field.type) for field in schema], schema)


def merge(folder: Path, events: Sequence[Event], package: int = 1) -> int:
    return tables.merge(folder, "lineage", table(events, package))


def shown(instance: dg.DagsterInstance, site: str) -> list[tuple[int, str, str, bool | None, int]]:
    """What was replayed of a site, in the log's order: n, kind, asset:check, passed, events."""
    found = []
    for record in eventlog.records(instance, 0):
        made = eventlog.recorded(record.event_log_entry)
        metadata = {name: value.value for name, value in made.metadata.items()}
        if metadata.get(SITE) != site:
            continue
        checked = isinstance(made, dg.AssetCheckEvaluation)
        name = made.asset_key.to_user_string() + (f":{made.check_name}" if checked else "")
        passed = made.passed if checked else None
        found.append(
            (metadata[lineage.REPLAYED], type(made).__name__, name, passed, metadata["edge_ai/events"])
        )
    return found
