"""The contract with Dagster's event log: what `eventlog` uses and Dagster does not promise.

Whoever comes here after an upgrade of Dagster: each message says what to change. Nothing else in the project
uses what is tested here.
"""

from __future__ import annotations

import inspect

import dagster as dg
import pytest
from dagster._core.events import DagsterEvent
from dagster._core.storage.event_log.sql_event_log import SqlEventLogStorage

from edge_ai_assets import eventlog

KEY = dg.AssetKey(["site", "scores"])
CHECK = dg.AssetCheckKey(KEY, "serving")
LONG_AGO = 1_700_000_000.25
PINNED = "the constraints' Dagster; keep that version until eventlog.py is changed"


@pytest.fixture(params=["in memory", "on disk"])
def instance(request, tmp_path):
    made = dg.DagsterInstance.local_temp(str(tmp_path)) if request.param == "on disk" else None
    with made or dg.DagsterInstance.ephemeral() as found:
        yield found


def events(n=0):
    return [
        dg.AssetMaterialization(KEY, partition="bergen", metadata={"n": n}),
        dg.AssetCheckEvaluation(KEY, "serving", passed=False, metadata={"n": n + 1}),
        dg.AssetObservation(KEY, partition="bergen", metadata={"n": n + 2}),
    ]


def numbers(instance, after=0):
    found = []
    for record in eventlog.records(instance, after):
        found.append(eventlog.recorded(record.event_log_entry).metadata["n"].value)
    return found


def test_the_call_that_takes_a_time_is_there():
    found = inspect.signature(dg.DagsterInstance.report_dagster_event).parameters
    assert {"dagster_event", "run_id", "timestamp"} <= set(found), (
        f"DagsterInstance.report_dagster_event has {sorted(found)}: sites' events get the time of import "
        f"(eventlog.TIMED is false) and tell the edge's in their metadata. Find how {dg.__version__} takes a "
        f"time and change eventlog.report; it was made for {PINNED}"
    )


def test_what_it_takes_is_made_the_same_way():
    found = set(inspect.signature(DagsterEvent).parameters)
    assert {"event_type_value", "event_specific_data", "job_name"} <= found, (
        f"DagsterEvent has {sorted(found)}: change eventlog.report; it was made for {PINNED}"
    )


def test_the_table_of_all_events_can_be_read():
    found = inspect.signature(SqlEventLogStorage.get_event_records).parameters
    assert {"event_records_filter", "limit", "ascending"} <= set(found), (
        f"SqlEventLogStorage.get_event_records has {sorted(found)}: change eventlog._page; made for {PINNED}"
    )


def test_an_event_has_the_time_it_was_given(instance):
    for event in events():
        eventlog.report(instance, event, LONG_AGO)
    times = [record.timestamp for record in eventlog.records(instance, 0)]
    assert times == [LONG_AGO] * 3, "Dagster gave its own time: see eventlog.TIMED"
    [public] = instance.fetch_materializations(KEY, limit=5).records
    assert (public.timestamp, public.partition_key) == (LONG_AGO, "bergen")


def test_the_three_kinds_come_in_the_order_they_were_written_whatever_their_time(instance):
    for n in range(4):
        for event in events(3 * n):
            eventlog.report(instance, event, LONG_AGO - n)
    assert numbers(instance) == list(range(12))


def test_reading_goes_on_after_a_storage_id(instance, monkeypatch):
    monkeypatch.setattr(eventlog, "PAGE", 2)
    for n in range(4):
        for event in events(3 * n):
            eventlog.report(instance, event, LONG_AGO)
    ids = [record.storage_id for record in eventlog.records(instance, 0)]
    assert ids == sorted(ids)
    for place, found in enumerate(ids, 1):
        assert numbers(instance, found) == list(range(place, 12))
    assert eventlog.end(instance) == ids[-1]


def test_an_empty_log_ends_at_its_start(instance):
    assert eventlog.end(instance) == 0
    assert numbers(instance) == []


def test_a_check_may_fail_again_and_again(instance):
    for n in range(3):
        eventlog.report(instance, events(n)[1], LONG_AGO + n)
    found = instance.event_log_storage.get_asset_check_execution_history(CHECK, limit=10)
    assert [record.event.timestamp for record in found] == [LONG_AGO + 2, LONG_AGO + 1, LONG_AGO]


def test_without_the_call_an_event_is_written_all_the_same(instance, monkeypatch):
    monkeypatch.setattr(eventlog, "TIMED", False)
    for event in events():
        eventlog.report(instance, event, LONG_AGO)
    assert numbers(instance) == [0, 1, 2]
    assert all(record.timestamp > LONG_AGO for record in eventlog.records(instance, 0))


def test_events_of_runs_are_read_with_the_others(tmp_path):
    """On disk each run has a file of its own; the order is that of the table that holds all."""

    @dg.asset(key=KEY, check_specs=[dg.AssetCheckSpec("serving", asset=KEY)])
    def scores():
        yield dg.MaterializeResult(
            metadata={"n": 0}, check_results=[dg.AssetCheckResult(passed=True, metadata={"n": 0})]
        )

    with dg.DagsterInstance.local_temp(str(tmp_path)) as instance:
        for _ in range(2):
            dg.materialize([scores], instance=instance)
            eventlog.report(instance, events()[2], LONG_AGO)
        kinds = [type(eventlog.recorded(r.event_log_entry)) for r in eventlog.records(instance, 0)]
    once = [dg.AssetMaterialization, dg.AssetCheckEvaluation, dg.AssetObservation]
    assert kinds == once * 2


def test_notes_are_kept_whole(instance):
    assert eventlog.note(instance, "a") is None
    for text in ("1", "2" * 100_000):
        eventlog.take_note(instance, "a", text)
        assert eventlog.note(instance, "a") == text
    eventlog.take_note(instance, "b", "3")
    assert (eventlog.note(instance, "a"), eventlog.note(instance, "b")) == ("2" * 100_000, "3")


def test_a_log_that_is_no_sql_is_refused(instance):
    class Elsewhere:
        event_log_storage = object()

    with pytest.raises(TypeError, match="use SQLite or PostgreSQL"):
        list(eventlog.records(Elsewhere(), 0))
