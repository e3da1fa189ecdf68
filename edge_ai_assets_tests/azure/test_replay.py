"""What came home shows in Dagster's log once each, in each site's order, whatever came twice, late or in
pieces, and wherever the replay was killed."""

from __future__ import annotations

import contextlib
import itertools
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

import dagster as dg
import msgspec
import pytest
import sqlalchemy
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from edge_ai_assets import eventlog, keys
from edge_ai_assets.azure import replay as replays
from edge_ai_assets.azure.definitions import build_defs
from edge_ai_assets.azure.replay import Standing, replay, worth_showing
from edge_ai_assets.partitions import SITES
from edge_ai_assets.returns.inbox import tables
from edge_ai_assets.returns.package import lineage
from edge_ai_assets.returns.package.lineage import Check, Event
from edge_ai_assets.settings import Settings
from edge_ai_assets_tests.recorded import AT, MINUTE, STEPS, event, life, merge, run_id, shown

NAMES = ("bergen", "narvik")
PER_ROUND = len(STEPS)


@pytest.fixture(scope="module")
def anywhere():
    with dg.DagsterInstance.ephemeral() as made:
        yield made


class Killed(BaseException):
    """Stands for a process that dies."""


@pytest.fixture
def instance():
    with dg.DagsterInstance.ephemeral() as made:
        yield made


@contextlib.contextmanager
def dying_at(call):
    """The k-th report is the last thing the process does not do any more."""
    true, calls = eventlog.report, 0

    def report(*arguments):
        nonlocal calls
        calls += 1
        if calls == call:
            raise Killed
        true(*arguments)

    eventlog.report = report
    try:
        yield
    finally:
        eventlog.report = true


def about(one: Event):
    return f"{one.key}:{one.check.name}" if one.check else one.key


def newest(events):
    return {about(one): one.n for one in events}


def turns(events):
    """Numbers of the failed checks and of the first that passed after one."""
    found, failing = [], set()
    for one in events:
        if one.check and (not one.check.passed or about(one) in failing):
            found.append(one.n)
            (failing.discard if one.check.passed else failing.add)(about(one))
    return found


def expect_complete(instance, site, events):
    """What must hold of the log after any import of these events, however they came."""
    log = shown(instance, site)
    numbers = [n for n, *_ in log]
    assert numbers == sorted(set(numbers)), "once each, in the site's order"
    assert {name: n for n, _, name, _, _ in log} == newest(events), "the newest of each is the last shown"
    assert set(turns(events)) <= set(numbers), "every failed check, and the first that passed after one"
    counted = Counter()
    for *_, name, _, count in log:
        counted[name] += count
    assert counted == Counter(map(about, events)), "together they stand for every event"


def test_what_people_look_at_is_shown_on_the_right_partition(instance, tmp_path):
    events = life("bergen", 5 * PER_ROUND, failing={10})
    merge(tmp_path, events)
    done = replay(instance, tmp_path, NAMES)
    assert (done.events, done.sites, done.gaps) == (len(events), {"bergen": len(events)}, {})
    assert done.reported == len(shown(instance, "bergen")) == PER_ROUND + 2
    expect_complete(instance, "bergen", events)
    for key in (keys.SITE_SCORES, keys.SITE_UPLOAD):
        assert instance.get_materialized_partitions(key) == {"bergen"}
    assert instance.get_dynamic_partitions(SITES.name) == ["bergen"]


def test_an_event_has_the_edges_time_and_says_where_it_is_from(instance, tmp_path):
    merge(tmp_path, [event("bergen", 1, "site/scores", release=7, anomalies=2)])
    replay(instance, tmp_path, NAMES)
    [record] = instance.fetch_materializations(keys.SITE_SCORES, limit=10).records
    assert record.timestamp == (AT + MINUTE) / 1e6
    metadata = {name: value.value for name, value in record.asset_materialization.metadata.items()}
    assert metadata == {
        "release": 7,
        "anomalies": 2,
        "edge_ai/site": "bergen",
        "edge_ai/n": 1,
        "edge_ai/edge_time": (AT + MINUTE) / 1e6,
        "edge_ai/import_time": (AT + 10**12) / 1e6,
        "edge_ai/run": run_id("bergen", 0),
        "edge_ai/events": 1,
        "edge_ai/shows": "event 1 of bergen: newest of 1 like it, all in global/history",
        "edge_ai/table": str(tmp_path / "lineage"),
    }


def test_a_check_and_an_observation_are_shown(instance, tmp_path):
    merge(
        tmp_path,
        [
            event("bergen", 1, "site/upload", kind="observation", state="disconnected"),
            event("bergen", 2, "site/upload", check="conservation", passed=False),
        ],
    )
    replay(instance, tmp_path, NAMES)
    [seen] = instance.fetch_observations(keys.SITE_UPLOAD, limit=10).records
    assert seen.asset_observation.partition == "bergen"
    key = dg.AssetCheckKey(keys.SITE_UPLOAD, "conservation")
    [record] = instance.event_log_storage.get_asset_check_execution_history(key, limit=10)
    assert not record.evaluation.passed
    assert record.evaluation.severity == dg.AssetCheckSeverity.WARN
    assert record.evaluation.description == "bergen: failed"


def test_many_evaluations_of_one_check_are_all_taken(instance, tmp_path):
    """Dagster keeps one evaluation of no run a partition: theirs must have none."""
    for site in NAMES:
        merge(
            tmp_path,
            [event(site, n, "site/upload", check="conservation", passed=n % 3 == 0) for n in range(1, 13)],
        )
    replay(instance, tmp_path, NAMES)
    for site in NAMES:
        assert [n for n, *_ in shown(instance, site)] == list(range(1, 13))


def test_again_changes_nothing(instance, tmp_path):
    merge(tmp_path, life("bergen", 20))
    replay(instance, tmp_path, NAMES)
    before = shown(instance, "bergen")
    merge(tmp_path, life("bergen", 20), package=2)
    assert replay(instance, tmp_path, NAMES) == replays.Replayed()
    assert shown(instance, "bergen") == before


def test_nothing_has_come_yet(instance, tmp_path):
    assert replay(instance, tmp_path, NAMES) == replays.Replayed()


def test_sites_that_are_not_wanted_wait(instance, tmp_path):
    merge(tmp_path, life("bergen", 5))
    merge(tmp_path, life("narvik", 5))
    assert replay(instance, tmp_path, ["narvik"]).sites == {"narvik": 5}
    assert shown(instance, "bergen") == []
    assert replay(instance, tmp_path, NAMES).sites == {"bergen": 5}


def test_what_follows_a_gap_waits_for_it(instance, tmp_path):
    events = life("bergen", 30)
    merge(tmp_path, events[:10] + events[20:])
    done = replay(instance, tmp_path, NAMES)
    assert (done.gaps, done.sites, done.events) == ({"bergen": 11}, {"bergen": 10}, 10)
    assert max(n for n, *_ in shown(instance, "bergen")) == 10
    merge(tmp_path, events)
    assert replay(instance, tmp_path, NAMES).gaps == {}
    expect_complete(instance, "bergen", events)


def test_a_site_whose_first_events_are_missing_waits(instance, tmp_path):
    merge(tmp_path, life("bergen", 9)[3:])
    assert replay(instance, tmp_path, NAMES).gaps == {"bergen": 1}
    assert shown(instance, "bergen") == []


def test_a_line_that_a_newer_version_wrote_is_passed_over(instance, tmp_path):
    merge(tmp_path, life("bergen", 6))
    table = tables.existing(tmp_path, "lineage")
    table.update(
        predicate="n = 3",
        updates={"kind": "'unknown'", "asset": "NULL", "run": "NULL", "metadata": "NULL", "check": "NULL"},
    )
    assert replay(instance, tmp_path, NAMES).sites == {"bergen": 6}
    assert [n for n, *_ in shown(instance, "bergen")] == [1, 2, 4, 5, 6]


def test_an_event_of_a_run_that_is_here_is_here_already(tmp_path):
    with dg.DagsterInstance.ephemeral() as instance:
        instance.add_dynamic_partitions(SITES.name, ["bergen"])

        @dg.asset(key=keys.SITE_SCORES, partitions_def=SITES)
        def scores() -> None: ...

        here = dg.materialize([scores], instance=instance, partition_key="bergen").run_id
        merge(tmp_path, [msgspec.structs.replace(event("bergen", 1, "site/scores"), run=here)])
        done = replay(instance, tmp_path, NAMES)
        assert (done.events, done.reported) == (1, 0)
        assert len(instance.fetch_materializations(keys.SITE_SCORES, limit=10).records) == 1


def test_a_log_that_was_deleted_is_filled_again(tmp_path):
    events = life("bergen", 20)
    merge(tmp_path, events)
    for _ in range(2):
        with dg.DagsterInstance.ephemeral() as instance:
            replay(instance, tmp_path, NAMES)
            expect_complete(instance, "bergen", events)


def test_a_lost_note_repeats_nothing(instance, tmp_path):
    events = life("bergen", 20, failing={10, 15})
    merge(tmp_path, events)
    replay(instance, tmp_path, NAMES)
    before = shown(instance, "bergen")
    eventlog.take_note(instance, replays.NOTE, "{}")
    assert replay(instance, tmp_path, NAMES).reported == 0
    assert shown(instance, "bergen") == before


@pytest.mark.parametrize("rows", [1, 3, 7, 50_000])
def test_batches_of_any_size_show_every_site_complete(instance, tmp_path, monkeypatch, rows):
    monkeypatch.setattr(replays, "ROWS", rows)
    monkeypatch.setattr(replays, "SPANS", 2)
    lives = {site: life(site, 11 + number, failing={7}) for number, site in enumerate("abcde")}
    for events in lives.values():
        merge(tmp_path, events)
    done = replay(instance, tmp_path, list(lives))
    assert done.sites == {site: len(events) for site, events in lives.items()}
    assert done.events == sum(map(len, lives.values()))
    for site, events in lives.items():
        expect_complete(instance, site, events)


@pytest.mark.parametrize("call", range(1, 27))
def test_killed_at_any_report_it_ends_the_same(tmp_path, call):
    """A replay that dies, new events that come meanwhile, and the next replay: the log is as it should be."""
    lives = {site: life(site, 24, failing={7, 10, 15, 18}) for site in NAMES}
    for events in lives.values():
        merge(tmp_path, events[:20])
    with dg.DagsterInstance.ephemeral() as instance:
        with dying_at(call), contextlib.suppress(Killed):
            replay(instance, tmp_path, NAMES)
        for events in lives.values():
            merge(tmp_path, events, package=2)
        replay(instance, tmp_path, NAMES)
        for site, events in lives.items():
            expect_complete(instance, site, events)


@pytest.mark.parametrize("call", range(1, 15))
def test_killed_again_and_again_it_is_as_if_never_killed(tmp_path, call):
    events = life("bergen", 40, failing={7, 10, 15, 18, 23})
    merge(tmp_path, events)
    logs = []
    for kills in (0, 3):
        with dg.DagsterInstance.ephemeral() as instance:
            for _ in range(kills):
                with dying_at(call), contextlib.suppress(Killed):
                    replay(instance, tmp_path, NAMES)
            replay(instance, tmp_path, NAMES)
            logs.append(shown(instance, "bergen"))
    assert logs[0] == logs[1]


@pytest.mark.parametrize("call", [2, 3, 4, 9])
def test_killed_in_a_later_import(instance, tmp_path, call):
    """What was noted by the one before hides nothing that this one reported."""
    events = life("bergen", 40, failing={7, 10, 23, 26})
    merge(tmp_path, events[:20])
    replay(instance, tmp_path, NAMES)
    merge(tmp_path, events)
    with dying_at(call), pytest.raises(Killed):
        replay(instance, tmp_path, NAMES)
    replay(instance, tmp_path, NAMES)
    expect_complete(instance, "bergen", events)


def test_killed_between_the_reports_and_the_note(instance, tmp_path, monkeypatch):
    events = life("bergen", 20)
    merge(tmp_path, events)

    def die(*_):
        raise Killed

    with monkeypatch.context() as patch, contextlib.suppress(Killed):
        patch.setattr(eventlog, "take_note", die)
        replay(instance, tmp_path, NAMES)
    assert replay(instance, tmp_path, NAMES).reported == 0
    expect_complete(instance, "bergen", events)


def seen_by_people(instance):
    """What Dagster shows: numbers of each asset's events, and of each check's with how it went."""
    found = {}
    for asset in (keys.SITE_DEPLOYMENT, keys.SITE_SCORES, keys.SITE_UPLOAD):
        for fetch in (instance.fetch_materializations, instance.fetch_observations):
            for record in fetch(asset, limit=100).records:
                made = eventlog.recorded(record.event_log_entry)
                found.setdefault((type(made).__name__, asset), []).append(made.metadata["edge_ai/n"].value)
    for asset, check in ((keys.SITE_DEPLOYMENT, "serving"), (keys.SITE_UPLOAD, "conservation")):
        history = instance.event_log_storage.get_asset_check_execution_history
        for record in history(dg.AssetCheckKey(asset, check), limit=100):
            made = record.evaluation
            found.setdefault(check, []).append((made.metadata["edge_ai/n"].value, made.passed))
    return found


@pytest.mark.slow
def test_killed_at_any_statement_people_see_the_same(tmp_path):
    """Dagster needs several transactions for one event; a process may die before any of their statements."""
    merge(
        tmp_path,
        [
            event("bergen", 1, "site/scores"),
            event("bergen", 2, "site/deployment", check="serving", passed=False),
            event("bergen", 3, "site/deployment", check="serving"),
        ],
    )
    with dg.DagsterInstance.ephemeral() as instance:
        replay(instance, tmp_path, NAMES)
        expected = seen_by_people(instance)
    assert expected["serving"] == [(3, True), (2, False)]
    for kill in itertools.count(1):
        left = iter(range(kill - 1))

        def statement(*_, left=left):
            if next(left, None) is None:
                raise Killed

        with dg.DagsterInstance.ephemeral() as instance:
            sqlalchemy.event.listen(sqlalchemy.Engine, "before_cursor_execute", statement)
            try:
                replay(instance, tmp_path, NAMES)
                died = False
            except Killed:
                died = True
            finally:
                sqlalchemy.event.remove(sqlalchemy.Engine, "before_cursor_execute", statement)
            replay(instance, tmp_path, NAMES)
            assert seen_by_people(instance) == expected, f"killed at statement {kill}"
        if not died:
            break
    assert kill > 15


pieces = st.lists(st.tuples(st.integers(0, 29), st.integers(1, 15), st.sampled_from(NAMES)), max_size=6)


@settings(max_examples=8)
@given(pieces, st.sets(st.integers(1, 30)), st.lists(st.integers(1, 12), max_size=3))
def test_any_split_overlap_and_repetition_shows_the_same_history(tmp_path_factory, pieces, failing, kills):
    """Pieces of two sites' events in any order, with replays between that die anywhere."""
    folder = tmp_path_factory.mktemp("tables")
    lives = {site: life(site, 30, failing) for site in NAMES}
    dying = iter(kills)
    with dg.DagsterInstance.ephemeral() as instance:
        for start, length, site in pieces:
            merge(folder, lives[site][start : start + length])
            with dying_at(next(dying, 0)), contextlib.suppress(Killed):
                replay(instance, folder, NAMES)
        for site in NAMES:
            merge(folder, lives[site])
        replay(instance, folder, NAMES)
        for site in NAMES:
            expect_complete(instance, site, lives[site])
            assert instance.get_materialized_partitions(keys.SITE_SCORES) == set(NAMES)


names = st.from_regex(lineage.WORD, fullmatch=True)
some_values = st.one_of(
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False, allow_infinity=False),
    names,
    st.lists(names, max_size=3),
)
any_metadata = st.dictionaries(
    st.one_of(names, st.sampled_from(["dagster/row_count", "dagster/column_schema", "edge_ai/n"])),
    some_values,
)


@given(
    st.sampled_from(lineage.KINDS),
    names,
    st.sampled_from([1, 10**15, lineage.MAX_TIME - 1]),
    any_metadata,
    st.text(max_size=lineage.MAX_TEXT),
)
def test_whatever_a_site_may_say_is_taken(anywhere, kind, name, at, metadata, says):
    """An event that the envelope lets in and Dagster does not would hold up all sites for ever."""
    check = Check(name, True, "ERROR", says) if kind == "check" else None
    line = msgspec.json.encode(Event(1, kind, ("site", name), "bergen", at, "", "", metadata, check))
    try:
        said = lineage.decode(line)
    except ValueError:
        assume(False)
    row = {
        **msgspec.to_builtins(said),
        "asset": said.key,
        "at": datetime.fromtimestamp(at / 1e6, UTC),
        "imported_at": datetime.now(UTC),
    }
    before = eventlog.end(anywhere)
    eventlog.report(anywhere, replays._event("bergen", row, 1, Path("/tables")), at / 1e6)
    [record] = eventlog.records(anywhere, before)
    told = eventlog.recorded(record.event_log_entry)
    assert (told.asset_key.to_user_string(), told.metadata["edge_ai/n"].value) == (said.key, 1)


checks = st.lists(st.tuples(st.sampled_from(["serving", "conservation", None]), st.booleans()), min_size=1)


@given(checks, st.integers(0, 60))
def test_a_killed_replay_resumes_where_it_stood(steps, cut):
    """What a first replay showed before it died and what the second shows are what one would have shown."""
    rows = [
        {
            "n": n,
            "kind": "check" if name else "materialization",
            "asset": "site/upload",
            "check": {"name": name, "passed": passed} if name else None,
        }
        for n, (name, passed) in enumerate(steps, 1)
    ]
    once = [(row["n"], count) for row, count in worth_showing(rows, Standing())]
    first = once[:cut]
    then = [(row["n"], n) for row, n in worth_showing(rows, Standing(), {n for n, _ in first})]
    assert first + then == once
    standing = Standing()
    list(worth_showing(rows, standing))
    assert standing.n == len(rows)


def rows_about(*told):
    return [
        {"n": n, "kind": "check", "asset": "site/upload", "check": {"name": name, "passed": passed}}
        for n, (name, passed) in enumerate(told, 1)
    ]


def test_what_is_older_than_what_was_reported_of_the_same_is_not_shown():
    rows = rows_about(("a", False), ("a", True), ("a", False), ("a", False))
    assert [row["n"] for row, _ in worth_showing(rows, Standing(), {3})] == [4]


def test_what_was_reported_of_one_holds_back_nothing_of_another():
    rows = rows_about(("a", True), ("b", True), ("a", True))
    assert [row["n"] for row, _ in worth_showing(rows, Standing(), {3})] == [2]


def test_a_replayed_upload_asks_for_no_run(instance, tmp_path):
    """The inbox depends on site/upload; what is replayed is in the inbox already."""
    defs = build_defs(settings=Settings(home=tmp_path / "home"))
    for name in ("inbox", "insights", "feedback", "drift", "report", "history"):
        instance.report_runless_asset_event(dg.AssetMaterialization(dg.AssetKey(["global", name])))
    instance.add_dynamic_partitions(SITES.name, list(NAMES))
    seen = dg.evaluate_automation_conditions(defs, instance)
    for number in range(1, 4):
        for site in NAMES:
            merge(tmp_path, life(site, 16 * number))
        assert replay(instance, tmp_path, NAMES).reported
        seen = dg.evaluate_automation_conditions(defs, instance, cursor=seen.cursor)
        assert seen.total_requested == 0
    instance.report_runless_asset_event(dg.AssetMaterialization(keys.INBOX))
    assert dg.evaluate_automation_conditions(defs, instance, cursor=seen.cursor).total_requested
