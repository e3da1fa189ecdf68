"""Packages with the lineage of 100 sites, 10^5 events, brought into Azure's tables and Dagster on SQLite.

- `inbox`: the signed packages, 10 of each site, checked and merged into the tables.
- `replay`: what is merged in the table goes into Dagster's log, as `azure.replay` does it: the newest of each
  asset and check, failed checks, and the first that passed after one. 1 check in 200 fails.
- `naive`: every event into the log. Measured over some of them and scaled, since all would take an hour.
- `again`: a replay with nothing new, and `one site`: with one more package of one site.
- `killed`: the same, dying every 200 reports and started again: what it costs to find where it stood.

Nothing may be lost: the table must hold every event, the log the newest of each, every failed check once, and
counts that add up. It is checked before anything is told.

Why: a fleet that was away for months comes back at once, and Dagster takes some 10 ms for an event.
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from unittest import mock

import dagster as dg
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from measure import scratch, tell

from edge_ai_assets import eventlog
from edge_ai_assets.azure import replay as replays
from edge_ai_assets.azure.replay import replay
from edge_ai_assets.returns.inbox import inbox, tables
from edge_ai_assets.returns.package import lineage, packages, parts
from edge_ai_assets.returns.package.lineage import Event
from edge_ai_assets_tests.recorded import STEPS, life, merge

SITES = [f"site-{number:03}" for number in range(100)]
EACH = 1_000
PACKAGES = 10
NAIVE = 500
KILL_EVERY = 200
FAILING = [n for n in range(1, EACH + 1) if STEPS[n % len(STEPS)][1]][100::200]


class Killed(BaseException):
    pass


def main() -> None:
    logging.disable(logging.WARNING)
    lives = {site: life(site, EACH, FAILING) for site in SITES}
    figures: dict[str, float] = {"sites": len(SITES), "events": len(SITES) * EACH}
    with scratch() as folder:
        key = Ed25519PrivateKey.generate()
        for site, events in lives.items():
            send(folder / "uplink" / site, site, events, key)
        start = time.perf_counter()
        keys = {site: [key.public_key()] for site in SITES}
        while inbox.receive(folder / "uplink", folder / "tables", keys, folder / "refused").packages:
            pass
        figures["inbox_seconds"] = time.perf_counter() - start
        with disk(folder / "whole") as instance:
            start = time.perf_counter()
            done = replay(instance, folder / "tables", SITES)
            figures["replay_seconds"] = time.perf_counter() - start
            figures["reported"] = done.reported
            check(instance, folder / "tables", lives)
            start = time.perf_counter()
            replay(instance, folder / "tables", SITES)
            figures["again_seconds"] = time.perf_counter() - start
            merge(folder / "tables", life(SITES[0], EACH + EACH // PACKAGES)[EACH:], PACKAGES + 1)
            start = time.perf_counter()
            replay(instance, folder / "tables", SITES)
            figures["one_site_seconds"] = time.perf_counter() - start
            figures["naive_seconds"] = naive(instance, folder / "tables") * len(SITES) * EACH / NAIVE
        with disk(folder / "killed") as instance:
            figures["killed_seconds"], figures["kills"] = killed(instance, folder / "tables")
    apply = figures["inbox_seconds"] + figures["replay_seconds"]
    tell(
        "replay",
        {**figures, "apply_seconds": apply},
        {
            "naive_to_replay": figures["naive_seconds"] / figures["replay_seconds"],
            "killed_to_whole": figures["killed_seconds"] / figures["replay_seconds"],
            "apply_of_60_seconds": apply / 60,
        },
    )


def disk(folder: Path) -> dg.DagsterInstance:
    folder.mkdir()
    return dg.DagsterInstance.local_temp(str(folder))


def send(folder: Path, site: str, events: list[Event], key: Ed25519PrivateKey) -> None:
    """Put the site's packages where they arrive."""
    folder.mkdir(parents=True)
    previous, each = "", EACH // PACKAGES
    for number in range(1, PACKAGES + 1):
        some = events[(number - 1) * each : number * each]
        data = packages.build(
            site=site,
            number=number,
            previous=previous,
            policy="",
            created_at=some[-1].at,
            first=0,
            last=0,
            lineage=[lineage.encode(event) for event in some],
            lineage_last=some[-1].n,
            key=key,
        )
        (folder / parts.name_of(site, number)).write_bytes(data)
        previous = hashlib.sha256(data).hexdigest()


def check(instance: dg.DagsterInstance, folder: Path, lives: dict[str, list[Event]]) -> None:
    """Raises AssertionError if anything is lost, twice, or out of order."""
    assert tables.count(folder, "lineage") == len(SITES) * EACH, "the table holds every event"
    seen: dict[str, list[int]] = {site: [] for site in SITES}
    counted: Counter[str] = Counter()
    for record in eventlog.records(instance, 0):
        metadata = eventlog.recorded(record.event_log_entry).metadata
        site = str(metadata[replays.SITE].value)
        seen[site].append(int(str(metadata[lineage.REPLAYED].value)))
        counted[site] += int(str(metadata["edge_ai/events"].value))
    for site, events in lives.items():
        newest = {(event.key, event.check and event.check.name): event.n for event in events}
        failed = {event.n for event in events if event.check and not event.check.passed}
        assert seen[site] == sorted(set(seen[site])), "once each, in order"
        assert failed and {*newest.values(), *failed} <= set(seen[site]), "the newest and every failed check"
        assert counted[site] == EACH, "together they stand for all"


def naive(instance: dg.DagsterInstance, folder: Path) -> float:
    """Seconds that NAIVE events take one by one."""
    rows = tables.rows(folder, "lineage", ["site", "at"])[:NAIVE]
    start = time.perf_counter()
    for n, row in enumerate(rows):
        made = dg.AssetMaterialization(["site", "scores"], partition=row["site"], metadata={"n": n})
        eventlog.report(instance, made, row["at"].timestamp())
    return time.perf_counter() - start


def killed(instance: dg.DagsterInstance, folder: Path) -> tuple[float, int]:
    """Seconds until everything is replayed with a death every KILL_EVERY reports, and how many there were."""
    true = eventlog.report
    start = time.perf_counter()
    for kills in range(1_000):
        calls: list[int] = []

        def dying(*arguments: object, calls: Sequence[int] = calls) -> None:
            if len(calls) == KILL_EVERY:
                raise Killed
            calls.append(1)  # type: ignore[attr-defined]
            true(*arguments)  # type: ignore[arg-type]

        try:
            with mock.patch.object(eventlog, "report", dying):
                replay(instance, folder, SITES)
        except Killed:
            continue
        return time.perf_counter() - start, kills
    raise AssertionError("it never ends")


if __name__ == "__main__":
    main()
