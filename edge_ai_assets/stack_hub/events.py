"""What the site's own Dagster recorded of the site chain, as lines of the lineage envelope.

In the order of the event log, whatever the clock did: the log's storage id is the mark where a package ends
and the next begins. What of an event may leave is `returns.package.lineage`'s to say; how lines travel is
`returns.package.packing`'s.
"""

from __future__ import annotations

import dagster as dg

from edge_ai_assets import eventlog, interfaces
from edge_ai_assets.returns.egress.policy import Policy
from edge_ai_assets.returns.package import lineage
from edge_ai_assets.returns.package.lineage import Check, Event
from edge_ai_assets.returns.package.parts import EventMark, EventSource

CHAIN = {spec.key for spec in interfaces.SITE_CHAIN}


def source(instance: dg.DagsterInstance, site: str, policy: Policy | None = None) -> EventSource:
    """The site's events, as `packing` asks for them.

    The function that is returned takes the mark where the last package ended and the most lines that are
    wanted; it gives the lines that follow and where they end. For the same mark it gives the same lines
    again, and after them those of events that came later. What of an event may not leave is left out, never
    the event.

    Args:
        instance: the site's own. On one that several sites share, an event without a partition counts as
            each one's.
        site: its name.
        policy: of the site: says whether it may be told what the scores of a run mean; None: it may not.
    """
    smallest = policy.told_by_run if policy else None

    def after(mark: EventMark, limit: int) -> tuple[list[bytes], EventMark]:
        lines: list[bytes] = []
        last = mark.storage_id
        for record in eventlog.records(instance, mark.storage_id):
            if len(lines) == limit:
                break
            last = record.storage_id
            event = _event(record.event_log_entry, site, mark.number + len(lines) + 1, smallest)
            if event is not None:
                lines.append(lineage.encode(event))
        return lines, EventMark(last, mark.number + len(lines))

    return after


def _event(entry: dg.EventLogEntry, site: str, number: int, smallest: int | None) -> Event | None:
    """The event as it may leave; None if it is another site's, no site's, or came from elsewhere."""
    made = eventlog.recorded(entry)
    asset = made.asset_key.to_user_string()
    here = made.asset_key in CHAIN and made.partition in (site, None)
    if not here or lineage.REPLAYED in made.metadata:
        return None
    check = None
    kind: lineage.Kind = "materialization" if isinstance(made, dg.AssetMaterialization) else "observation"
    if isinstance(made, dg.AssetCheckEvaluation):
        if made.check_name not in lineage.CHECKS.get(asset, {}):
            return None
        kind, text = "check", lineage.described(made.description)
        check = Check(made.check_name, made.passed, made.severity.value, text)
    values = {name: value.value for name, value in made.metadata.items()}
    return Event(
        n=number,
        kind=kind,
        asset=tuple(made.asset_key.path),
        partition=site,
        at=min(max(round(entry.timestamp * 1_000_000), 1), lineage.MAX_TIME - 1),
        run=lineage.run_id(entry.run_id),
        job=lineage.word(entry.job_name),
        metadata=lineage.allowed(asset, values, check.name if check else "", smallest),
        check=check,
    )
