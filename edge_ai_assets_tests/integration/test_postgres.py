"""Dagster's storage in PostgreSQL: what both sides declare, the lineage replayed into it, and a server that
dies in between."""

from __future__ import annotations

import inspect
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import dagster as dg
import pytest
import yaml

from edge_ai_assets import eventlog, local
from edge_ai_assets.azure.replay import replay
from edge_ai_assets.home import Home
from edge_ai_assets.partitions import SITES
from edge_ai_assets_tests import test_eventlog
from edge_ai_assets_tests.azure import test_replay
from edge_ai_assets_tests.integration import postgres
from edge_ai_assets_tests.integration.postgres import Server
from edge_ai_assets_tests.recorded import life, merge

pytestmark = pytest.mark.integration

DEPLOY = local.CHECKOUT / "deploy"
LINEAGE = [
    test_eventlog.test_an_event_has_the_time_it_was_given,
    test_eventlog.test_the_three_kinds_come_in_the_order_they_were_written_whatever_their_time,
    test_eventlog.test_reading_goes_on_after_a_storage_id,
    test_eventlog.test_a_check_may_fail_again_and_again,
    test_eventlog.test_notes_are_kept_whole,
    test_replay.test_what_people_look_at_is_shown_on_the_right_partition,
    test_replay.test_many_evaluations_of_one_check_are_all_taken,
    test_replay.test_a_lost_note_repeats_nothing,
    test_replay.test_killed_between_the_reports_and_the_note,
]
"""What is promised of any event log, tested elsewhere with SQLite."""
TICKING = """
import dagster as dg

@dg.asset
def counted(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
    return dg.MaterializeResult(metadata={"n": int(context.run.tags["n"])})

@dg.sensor(
    target=[counted], minimum_interval_seconds=4, default_status=dg.DefaultSensorStatus.RUNNING
)
def tick(context: dg.SensorEvaluationContext) -> dg.SensorResult:
    n = int(context.cursor or 0) + 1
    return dg.SensorResult([dg.RunRequest(run_key=str(n), tags={"n": str(n)})], cursor=str(n))

defs = dg.Definitions([counted], sensors=[tick], executor=dg.in_process_executor)
"""


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with postgres.server() as made:
        yield made


@pytest.fixture(scope="module")
def tables(server: Server, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A database with Dagster's tables, to be copied: Dagster takes a second to make them."""
    made = site(tmp_path_factory.mktemp("tables"))
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("DAGSTER_POSTGRES_URL", found := server.database())
        local.set_up(made)
    return found


@pytest.fixture
def home(server: Server, tables: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    """A site's, whose Dagster has a database of its own."""
    monkeypatch.setenv("DAGSTER_POSTGRES_URL", server.database(tables))
    made = site(tmp_path)
    local.set_up(made)
    return made


@pytest.fixture
def instance(home: Home) -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.from_config(str(home.dagster)) as made:
        yield made


@pytest.mark.parametrize("side", ["azure", "stack_hub"])
def test_what_a_side_declares_keeps_what_happens(
    side: str, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DAGSTER_POSTGRES_URL", server.database())
    declared = yaml.safe_load((DEPLOY / side / "dagster.yaml").read_text())
    declared.pop("compute_logs", None)  # Azure's are in Blob Storage, which is not here
    home = Home(tmp_path / "home")
    home.root.mkdir()
    home.instance.write_text(yaml.safe_dump(declared))
    local.set_up(home)

    @dg.asset(partitions_def=SITES)
    def scores() -> dg.MaterializeResult:
        return dg.MaterializeResult(metadata={"n": 7})

    with dg.DagsterInstance.from_config(str(home.dagster)) as instance:
        for storage in (instance.event_log_storage, instance.run_storage, instance.schedule_storage):
            assert type(storage).__module__.startswith("dagster_postgres")
        instance.add_dynamic_partitions(SITES.name, ["bergen", "narvik"])
        run = dg.materialize([scores], instance=instance, partition_key="bergen")
        eventlog.take_note(instance, "where", "7")
    with dg.DagsterInstance.from_config(str(home.dagster)) as again:
        assert again.get_materialized_partitions(dg.AssetKey("scores")) == {"bergen"}
        assert again.get_dynamic_partitions(SITES.name) == ["bergen", "narvik"]
        found = again.get_run_by_id(run.run_id)
        assert found is not None
        assert found.status is dg.DagsterRunStatus.SUCCESS
        assert eventlog.note(again, "where") == "7"


@pytest.mark.parametrize("promise", LINEAGE, ids=lambda promise: promise.__name__.removeprefix("test_"))
def test_lineage_is_what_it_is_with_sqlite(
    promise: Callable[..., None],
    instance: dg.DagsterInstance,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    there = {"instance": instance, "tmp_path": tmp_path, "monkeypatch": monkeypatch}
    promise(**{name: there[name] for name in inspect.signature(promise).parameters})


def test_the_server_dies_in_the_middle_of_a_replay(
    server: Server, home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events = life("bergen", 5 * test_replay.PER_ROUND, failing={10})
    merge(tmp_path, events)
    true, calls = eventlog.report, 0

    def report(*arguments: object) -> None:
        nonlocal calls
        calls += 1
        if calls == 5:
            server.kill()
        true(*arguments)  # type: ignore[arg-type]

    with monkeypatch.context() as patched, dg.DagsterInstance.from_config(str(home.dagster)) as instance:
        patched.setattr(eventlog, "report", report)
        with pytest.raises(Exception, match=r"connection|retries"):
            replay(instance, tmp_path, ["bergen"])
    server.start()
    with dg.DagsterInstance.from_config(str(home.dagster)) as instance:
        replay(instance, tmp_path, ["bergen"])
        test_replay.expect_complete(instance, "bergen", events)


def test_daemon_and_runs_go_on_after_the_server_died(server: Server, home: Home, tmp_path: Path) -> None:
    """No number is left out or asked for twice: the sensor's cursor and its runs are in the database."""
    (tmp_path / "ticking.py").write_text(TICKING)
    loads = tmp_path / "workspace.yaml"
    loads.write_text("load_from: [{python_file: {relative_path: ticking.py}}]\n")
    with local.daemon(home, loads) as process:
        counted(home, 2)
        server.kill()
        server.start()
        with dg.DagsterInstance.from_config(str(home.dagster)) as instance:
            asked = len(instance.get_runs())
        counted(home, asked + 1)
        assert process.poll() is None, "the daemon ended: a service manager would start it again"
    with dg.DagsterInstance.from_config(str(home.dagster)) as instance:
        first = [int(run.tags["n"]) for run in instance.get_runs() if run.parent_run_id is None]
    assert sorted(first) == list(range(1, len(first) + 1))


def site(folder: Path) -> Home:
    made = Home(folder / "home")
    made.root.mkdir()
    shutil.copyfile(DEPLOY / "stack_hub" / "dagster.yaml", made.instance)
    return made


def counted(home: Home, number: int) -> None:
    """Wait until runs have counted up to this number; one that died with the server is run again."""
    until = time.monotonic() + 240
    while time.monotonic() < until:
        with dg.DagsterInstance.from_config(str(home.dagster)) as instance:
            records = instance.fetch_materializations(dg.AssetKey("counted"), limit=200).records
        made = [record.asset_materialization for record in records]
        if set(range(1, number + 1)) <= {int(str(one.metadata["n"].value)) for one in made if one}:
            return
        time.sleep(0.5)
    log = (home.dagster / "daemon.log").read_text()
    raise AssertionError(f"not up to {number}: {log[-3000:]}")
