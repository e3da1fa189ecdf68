"""From the lineage table onto Azure's asset graph: what happened at the sites, once each, in their order.

All detail stays in the table. Into Dagster's log goes what people look at: the newest of each asset and each
check, every failed check, and the first that passed after one. How the log takes events with a time of their
own is `eventlog`'s matter; what the table tells by itself is `returns.inbox.history`'s.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import datetime
from itertools import groupby
from pathlib import Path
from typing import Any

import dagster as dg
import msgspec

from edge_ai_assets import eventlog
from edge_ai_assets.delivery import durable
from edge_ai_assets.partitions import SITES
from edge_ai_assets.returns.inbox import history
from edge_ai_assets.returns.inbox.history import Span
from edge_ai_assets.returns.package import lineage

NOTE = "edge_ai/replay"
"""Where the standing is noted, in Dagster's own storage."""
SITE = "edge_ai/site"
"""With the event's number, `lineage.REPLAYED`, metadata that no other event has."""
ROWS = 50_000
"""Most events that are held in memory at once."""
SPANS = 100
"""Most sites that are looked up at once."""

Row = Mapping[str, Any]


class Replayed(msgspec.Struct):
    """What one replay did."""

    events: int = 0
    """Events that were new."""
    reported: int = 0
    """Of these, written into Dagster's log; each says how many events it stands for."""
    sites: dict[str, int] = {}
    """Number of the newest event of each site that had new ones."""
    gaps: dict[str, int] = {}
    """Number of the event that is missing at a site while later ones are there, which wait for it."""


class Standing(msgspec.Struct):
    """Where one site stands: events up to `n` are accounted for in Dagster's log."""

    n: int = 0
    failing: set[str] = set()
    """Checks that failed when last evaluated, as asset:name."""


class Note(msgspec.Struct):
    """Where the replay stands. What was reported later is found in the log, after the storage id `seen`."""

    seen: int = 0
    sites: dict[str, Standing] = {}


def replay(instance: dg.DagsterInstance, tables: Path, sites: Collection[str]) -> Replayed:
    """Bring what is new in the lineage table into Dagster's log.

    Each site's events are reported in the order of their numbers, and after each batch it is noted how far
    they came. What a killed replay reported after its last note is found in the log and not reported again.
    An event of a run that this instance has happened here and is not reported at all.

    Args:
        instance: Azure's.
        tables: folder of the Delta tables.
        sites: whose events are wanted. They become partitions before any event is reported: of a partition
            that is not known yet, Dagster's automation never sees one.

    One process at a time may replay into the same instance; others wait.
    """
    done = Replayed()
    with durable.locked(tables / ".replay.lock"):
        note = msgspec.json.decode(eventlog.note(instance, NOTE) or "{}", type=Note)
        heads = history.heads(tables)
        standings = {site: note.sites.get(site, Standing()) for site in sorted(sites)}
        behind = {
            site: (standing.n, heads[site])
            for site, standing in standings.items()
            if heads.get(site, 0) > standing.n
        }
        if not behind:
            return done
        found = _reported_after(instance, note.seen)
        _register(instance, behind)
        for spans in _batches(behind):
            rows = history.events(tables, [span for span in spans if span.site not in done.gaps])
            for site, events in groupby(rows, key=lambda row: str(row["site"])):
                _replay_site(instance, tables, site, list(events), standings[site], found[site], done)
                note.sites[site] = standings[site]
            note.seen = eventlog.end(instance)
            eventlog.take_note(instance, NOTE, msgspec.json.encode(note, order="sorted").decode())
    return done


def worth_showing(
    rows: Sequence[Row], standing: Standing, reported: Collection[int] = ()
) -> Iterator[tuple[Row, int]]:
    """Which of a site's events go into Dagster's log, and of how many each is the newest.

    Args:
        rows: the events that follow those of `standing`, without gaps; see `history.events`.
        standing: is brought up to the last of them.
        reported: numbers of those that a killed replay has reported. They, and what is older of the same
            asset or check, are not shown again.
    """
    newest = {_about(row): row["n"] for row in rows}
    resume = {_about(row): row["n"] for row in rows if row["n"] in reported}
    stands_for: Counter[str] = Counter()
    for row in rows:
        about = _about(row)
        stands_for[about] += 1
        turned = False
        if row["check"]:
            turned = not row["check"]["passed"] or about in standing.failing
            (standing.failing.discard if row["check"]["passed"] else standing.failing.add)(about)
        standing.n = row["n"]
        if row["n"] in reported:
            del stands_for[about]
        elif (
            row["n"] > resume.get(about, 0)
            and row["kind"] in lineage.KINDS
            and (turned or newest[about] == row["n"])
        ):
            yield row, stands_for.pop(about)


def _replay_site(
    instance: dg.DagsterInstance,
    tables: Path,
    site: str,
    rows: list[dict[str, Any]],
    standing: Standing,
    reported: Collection[int],
    done: Replayed,
) -> None:
    """Report the events of one site up to the first gap; count them in `done`."""
    whole = [row for expected, row in enumerate(rows, standing.n + 1) if row["n"] == expected]
    if len(whole) < len(rows):
        done.gaps[site] = standing.n + len(whole) + 1
    for row, count in worth_showing(whole, standing, reported):
        if row["run"] and instance.get_run_by_id(row["run"]) is not None:
            continue
        eventlog.report(instance, _event(site, row, count, tables), row["at"].timestamp())
        done.reported += 1
    done.events += len(whole)
    done.sites[site] = standing.n


def _event(site: str, row: Row, count: int, tables: Path) -> eventlog.Reported:
    metadata = {
        **(row["metadata"] or {}),
        SITE: site,
        lineage.REPLAYED: row["n"],
        "edge_ai/edge_time": _moment(row["at"]),
        "edge_ai/import_time": _moment(row["imported_at"]),
        "edge_ai/run": row["run"] or "none",
        "edge_ai/events": count,
        "edge_ai/shows": f"event {row['n']} of {site}: newest of {count} like it, all in global/history",
        "edge_ai/table": dg.MetadataValue.path(tables / history.NAME),
    }
    asset = dg.AssetKey(row["asset"].split("/"))
    if row["kind"] == "materialization":
        return dg.AssetMaterialization(asset, partition=site, metadata=metadata)
    if row["kind"] == "observation":
        return dg.AssetObservation(asset, partition=site, metadata=metadata)
    check = row["check"]
    return dg.AssetCheckEvaluation(
        asset_key=asset,
        check_name=check["name"],
        passed=check["passed"],
        severity=dg.AssetCheckSeverity[check["severity"]],
        description=f"{site}: {check.get('description') or ('passed' if check['passed'] else 'failed')}",
        metadata=metadata,
    )


def _moment(at: datetime) -> dg.TimestampMetadataValue:
    return dg.MetadataValue.timestamp(at)


def _about(row: Row) -> str:
    """What an event is the newest of."""
    return f"{row['asset']}:{row['check']['name']}" if row["check"] else f"{row['kind']} {row['asset']}"


def _register(instance: dg.DagsterInstance, sites: Collection[str]) -> None:
    known = set(instance.get_dynamic_partitions(str(SITES.name)))
    if new := [site for site in sites if site not in known]:
        instance.add_dynamic_partitions(str(SITES.name), new)


def _reported_after(instance: dg.DagsterInstance, seen: int) -> defaultdict[str, set[int]]:
    """Numbers of each site's events that were reported and perhaps not noted."""
    found: defaultdict[str, set[int]] = defaultdict(set)
    last: tuple[eventlog.Reported, str, int] | None = None
    for record in eventlog.records(instance, seen):
        told = eventlog.recorded(record.event_log_entry)
        if lineage.REPLAYED in told.metadata and SITE in told.metadata:
            last = told, str(told.metadata[SITE].value), int(str(told.metadata[lineage.REPLAYED].value))
            found[last[1]].add(last[2])
    if last and eventlog.torn(instance, last[0]):
        found[last[1]].discard(last[2])
    return found


def _batches(behind: Mapping[str, tuple[int, int]]) -> Iterator[list[Span]]:
    """Spans of events, each site's in order, that are at most ROWS together."""
    batch: list[Span] = []
    held = 0
    for site, (done, head) in behind.items():
        for first in range(done + 1, head + 1, ROWS):
            span = Span(site, first, min(first + ROWS - 1, head))
            if batch and (held + span.last - span.first >= ROWS or len(batch) == SPANS):
                yield batch
                batch, held = [], 0
            batch.append(span)
            held += span.last - span.first + 1
    yield batch
