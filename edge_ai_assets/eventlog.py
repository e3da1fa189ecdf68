"""The one module that uses what Dagster does not promise: its event log in the log's own order, and events
with a time of their own.

Public calls give neither (docs/adr/0005-lineage-replay.md). `test_eventlog.py` fails when another version of
Dagster has changed what is used here, and says what to do. What the events mean is the callers' business.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from heapq import merge

import dagster as dg
from dagster._core.events import AssetObservationData, DagsterEvent, StepMaterializationData
from dagster._core.storage.event_log.sql_event_log import SqlEventLogStorage

PAGE = 1_000
"""Records read at once."""
KINDS = (
    dg.DagsterEventType.ASSET_MATERIALIZATION,
    dg.DagsterEventType.ASSET_OBSERVATION,
    dg.DagsterEventType.ASSET_CHECK_EVALUATION,
)
TIMED = "timestamp" in inspect.signature(dg.DagsterInstance.report_dagster_event).parameters
"""Whether an event can be given its time. If not, it has the time of its report; metadata has to tell."""

Reported = dg.AssetMaterialization | dg.AssetObservation | dg.AssetCheckEvaluation


def records(instance: dg.DagsterInstance, after: int) -> Iterator[dg.EventLogRecord]:
    """Materializations, observations and evaluations of checks, in the order of the log.

    Args:
        instance: one with an event log in SQL.
        after: storage id; those that follow it are given.
    """
    return merge(
        *(_of_kind(instance, kind, after) for kind in KINDS), key=lambda record: int(record.storage_id)
    )


def end(instance: dg.DagsterInstance) -> int:
    """Storage id of the last of these records; 0 when there is none."""
    last = [_page(instance, dg.EventRecordsFilter(kind), 1, ascending=False) for kind in KINDS]
    return max((int(page[0].storage_id) for page in last if page), default=0)


def recorded(entry: dg.EventLogEntry) -> Reported:
    """What the entry of one of these records is about."""
    found = entry.asset_materialization or entry.asset_observation or entry.asset_check_evaluation
    if found is None:
        raise TypeError(f"an entry of kind {entry.dagster_event_type} is about no asset")
    return found


def report(instance: dg.DagsterInstance, event: Reported, at: float) -> None:
    """Write an event of no run into the log.

    Args:
        instance: where.
        event: what. A check's evaluation has no partition: of one check Dagster keeps one such evaluation a
            partition, and refuses the next.
        at: seconds since 1970, UTC, when it happened.
    """
    if not TIMED:
        instance.report_runless_asset_event(event)
        return
    data: StepMaterializationData | AssetObservationData | dg.AssetCheckEvaluation
    if isinstance(event, dg.AssetMaterialization):
        kind, data = dg.DagsterEventType.ASSET_MATERIALIZATION, StepMaterializationData(event)
    elif isinstance(event, dg.AssetObservation):
        kind, data = dg.DagsterEventType.ASSET_OBSERVATION, AssetObservationData(event)
    else:
        kind, data = dg.DagsterEventType.ASSET_CHECK_EVALUATION, event
    made = DagsterEvent(event_type_value=kind.value, event_specific_data=data, job_name="")
    instance.report_dagster_event(made, run_id="", timestamp=at)


def torn(instance: dg.DagsterInstance, event: Reported) -> bool:
    """Whether this is a check's evaluation that the check does not know of.

    Dagster writes an evaluation into the log and then, in another transaction, among those of its check,
    where people see it. Of a process that died in between it is the last event.
    """
    if not isinstance(event, dg.AssetCheckEvaluation):
        return False
    known = instance.event_log_storage.get_asset_check_execution_history(event.asset_check_key, limit=PAGE)
    return not any(record.evaluation == event for record in known)


def note(instance: dg.DagsterInstance, key: str) -> str | None:
    """What was noted under a key beside the log, in the same storage; None for nothing."""
    return instance.daemon_cursor_storage.get_cursor_values({key}).get(key)


def take_note(instance: dg.DagsterInstance, key: str, value: str) -> None:
    """Note a text under a key, in place of what was there, durably and whole."""
    # One key a call: with several, Dagster updates those it knows and forgets those that are new.
    instance.daemon_cursor_storage.set_cursor_values({key: value})


def _of_kind(
    instance: dg.DagsterInstance, kind: dg.DagsterEventType, after: int
) -> Iterator[dg.EventLogRecord]:
    while True:
        page = _page(instance, dg.EventRecordsFilter(kind, after_cursor=after), PAGE, ascending=True)
        yield from page
        if len(page) < PAGE:
            return
        after = page[-1].storage_id


def _page(
    instance: dg.DagsterInstance, wanted: dg.EventRecordsFilter, limit: int, *, ascending: bool
) -> list[dg.EventLogRecord]:
    # The public fetch_… methods leave out checks, and a check's own history has no place in the order of the
    # log. The base class reads the table that all three are in; SQLite's own method looks for checks in the
    # files of the runs, each of which counts from 1.
    storage = instance.event_log_storage
    if not isinstance(storage, SqlEventLogStorage):
        raise TypeError(
            f"lineage is read from an event log in SQL, this one is a {type(storage).__name__}: "
            "use SQLite or PostgreSQL as storage in dagster.yaml"
        )
    return list(SqlEventLogStorage.get_event_records(storage, wanted, limit=limit, ascending=ascending))
