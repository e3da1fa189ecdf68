"""The inbox and packages of format 2: every member becomes rows; lineage has no gaps; what one site sends
wrongly holds up no other; tables of an older version are widened."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from edge_ai_assets.returns.egress.policy import Histogram
from edge_ai_assets.returns.inbox import heads, inbox, merging, tables
from edge_ai_assets.returns.outbox.schema import Tally
from edge_ai_assets.returns.package import packages
from edge_ai_assets.returns.package.parts import Aggregate, Insight, Sketch, Word, name_of
from edge_ai_assets_tests import sent
from edge_ai_assets_tests.sent import START, event, package

GOLDEN_KEY = Ed25519PrivateKey.from_private_bytes(b"golden files only, no secret! 32")
GOLDEN = Path(__file__).parents[1] / "golden"
SHA = "{:064x}".format


@pytest.fixture
def world(tmp_path):
    return sent.Arrivals(tmp_path)


@pytest.fixture(scope="module")
def bergen():
    return sent.chain()


def counts(world):
    return {name: tables.count(world.tables, name) for name in tables.KEYS}


def test_every_member_becomes_rows(world, bergen):
    world.put(*bergen)
    done = world.receive(now=lambda: START)
    assert (done.packages, done.insights, done.feedback, done.lineage, done.failed) == (4, 12, 4, 8, [])
    assert counts(world) == {
        "insights": 12,
        "feedback": 4,
        "histograms": 4,
        "aggregates": 4,
        "sketches": 4,
        "lineage": 8,
        "packages": 4,
    }
    (row,) = tables.rows(world.tables, "packages", site="bergen", number=2)
    assert (row["format"], row["complete"], row["lineage_first"], row["lineage_last"]) == (3, 6, 3, 4)
    assert [row[name] for name in ("scored", "packed", "withheld", "waiting")] == [8, 6, 0, 2]
    assert json.loads(row["expired_for"]) == {"full": 2}
    assert row["inventory"] == ["a" * 64, "b" * 64] and row["running"] == "sha256:" + "c" * 64
    (sketch,) = tables.rows(world.tables, "sketches", site="bergen", package=1)
    assert (sketch["sketch"], sketch["k"], sketch["rows"]) == (sent.SKETCH, 200, 3)
    (aggregate,) = tables.rows(world.tables, "aggregates", site="bergen", package=1)
    assert (aggregate["rows"], aggregate["anomalies"], aggregate["day"].isoformat()) == (5, 3, "2025-10-10")


def test_lineage_is_a_row_an_event(world, bergen):
    world.put(*bergen)
    world.receive(now=lambda: START + 5)
    found = sorted(tables.rows(world.tables, "lineage", site="bergen"), key=lambda row: row["n"])
    assert [row["n"] for row in found] == list(range(1, 9))
    assert [row["package"] for row in found] == [1, 1, 2, 2, 3, 3, 4, 4]
    made, check = found[0], found[2]
    assert (made["kind"], made["asset"], made["partition"]) == ("materialization", "site/scores", "bergen")
    assert (made["run"][-1], made["job"], json.loads(made["metadata"])) == ("1", "score_sites", {"files": 1})
    assert (made["check"], made["raw"], made["problem"]) == (None, None, None)
    assert heads._microseconds(made["at"]) == START and heads._microseconds(made["imported_at"]) == START + 5
    assert check["kind"] == "check" and json.loads(check["check"])["passed"] is False


def test_what_is_empty_leaves_nothing_out(world):
    """A package of format 2 that holds an event and nothing else."""
    none = {
        "insights": (),
        "feedback": (),
        "histograms": (),
        "aggregates": (),
        "sketches": (),
        "counts": None,
    }
    world.put((name_of("bergen", 1), package("bergen", 1, "", first=0, last=0, complete=0, **none)))
    done = world.receive()
    assert (done.packages, done.lineage, done.days) == (1, 2, set())
    (row,) = tables.rows(world.tables, "packages")
    assert (row["complete"], row["scored"], row["waiting"]) == (0, None, None)


def test_a_package_of_format_1_is_followed_by_one_of_format_2(world):
    name = "bergen-00000001.zip"
    data = (GOLDEN / name).read_bytes()
    world.keys["bergen"].append(GOLDEN_KEY.public_key())
    world.put((name, data))
    assert world.receive().packages == 1
    (row,) = tables.rows(world.tables, "packages")
    assert (row["format"], row["complete"], row["scored"], row["expired_for"]) == (1, None, None, "{}")
    assert heads.read(world.tables)["bergen"].complete is None
    world.put((name_of("bergen", 2), package("bergen", 2, hashlib.sha256(data).hexdigest(), events=0)))
    assert world.receive().packages == 1
    assert heads.read(world.tables)["bergen"].complete == 6


@pytest.mark.parametrize(
    ("lines", "last", "said"),
    [
        ([event(2, "bergen")], 2, "events are 2 to 2, 1 to 1 would follow event 0"),
        ([event(1, "bergen"), event(2, "bergen")], 3, "2 to 3, 1 to 2 would"),
        ([event(1, "bergen"), event(3, "bergen")], 2, "lineage event 2 has the number 3"),
        ([event(2, "bergen"), event(1, "bergen")], 2, "lineage event 1 has the number 2"),
    ],
)
def test_lineage_with_a_gap_is_refused(world, lines, last, said):
    world.put((name_of("bergen", 1), package("bergen", 1, "", lineage=lines, lineage_last=last)))
    ((_, reason),) = world.receive().refused
    assert said in reason and not tables.existing(world.tables, "packages")


def test_lineage_that_is_repeated_in_the_next_package_is_refused(world):
    first = package("bergen", 1, "")
    again = package(
        "bergen", 2, hashlib.sha256(first).hexdigest(), lineage=[event(2, "bergen")], lineage_last=2
    )
    world.put((name_of("bergen", 1), first), (name_of("bergen", 2), again))
    done = world.receive()
    assert done.packages == 1 and "2 to 2, 3 to 3 would follow event 2" in done.refused[0][1]


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        (event(1, "bergen").replace(b'"v":1', b'"v":2'), "version 2"),
        (b"{", "lineage line"),
        (b"\xff\x00", "lineage line"),
        (event(1, "narvik"), "it is about partition 'narvik' and came from site 'bergen'"),
        (event(1, "bergen").replace(b'"at":1', b'"at":-1'), "at is -1"),
    ],
)
def test_a_line_that_cannot_be_read_is_kept_as_it_came(world, line, problem):
    lines = [line, event(2, "bergen")]
    world.put((name_of("bergen", 1), package("bergen", 1, "", lineage=lines, lineage_last=2)))
    done = world.receive()
    assert (done.packages, done.lineage) == (1, 2)
    first, second = sorted(tables.rows(world.tables, "lineage"), key=lambda row: row["n"])
    assert (first["kind"], first["raw"], first["asset"], first["n"]) == (tables.UNKNOWN, line, None, 1)
    assert problem in first["problem"]
    assert second["kind"] == "materialization"


FAR = 400_000_000_000_000_000


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        ({"created_at": -1}, "created_at is -1"),
        ({"created_at": FAR}, "created_at"),
        ({"complete": 1 << 63}, "complete is 9223372036854775808"),
        ({"complete": -2}, "complete is -2"),
        ({"counts": Tally(1 << 64, 0, 0, 0, 0, 0)}, "scored"),
        ({"insights": [Insight(1, FAR, "r1", "anomaly", 0.1, True, {})]}, "insights: scored_at"),
        ({"insights": [Insight(None, START, "r1", "anomaly", 0.1, True, {})]}, "1 rows have no sequence"),
        ({"insights": [Insight(1, None, "r1", "anomaly", 0.1, True, {})]}, "1 rows have no scored_at"),
        ({"insights": [Insight(1, START, None, "anomaly", 0.1, True, {})]}, "1 rows have no release"),
        ({"feedback": [Word(None, 1, START, "r1", True, None, None, {})]}, "feedback: 1 rows have no id"),
        ({"feedback": [Word(1, 1, -1, "r1", True, None, None, {})]}, "feedback: given_at is from -1"),
        ({"aggregates": [Aggregate("r1", FAR, 1, 0, 0, 0.0)]}, "aggregates: window"),
        ({"aggregates": [Aggregate("r1", START, None, 0, 0, 0.0)]}, "aggregates: 1 rows have no rows"),
        ({"histograms": [Histogram("r1", None, 1, (1,))]}, "histograms: 1 rows have no feature"),
        ({"histograms": [Histogram("r1", "Flow", 1, (-1, 2))]}, "histograms: counts"),
        (
            {"sketches": [Sketch("r1", "Flow", 3, 200, b"nonsense")]},
            "sketches: that of 'Flow' cannot be read",
        ),
        ({"sketches": [Sketch("r1", "Flow", 4, 200, sent.SKETCH)]}, "sketches"),
    ],
)
def test_what_would_break_the_tables_is_refused_and_holds_up_nobody(world, parts, said, monkeypatch):
    # Some of it cannot be built; whoever has a site's key has other tools.
    monkeypatch.setattr(packages, "sorted", lambda items: sorted(filter(None, items)), raising=False)
    world.put((name_of("bergen", 1), package("bergen", 1, "", **parts)))
    world.put(*sent.chain("narvik", 1), site="narvik")
    done = world.receive()
    assert done.packages == 1 and heads.read(world.tables).keys() == {"narvik"}
    ((_, reason),) = done.refused
    assert said in reason


@pytest.fixture
def failing(monkeypatch):
    """Merges fail of whatever is from the sites named."""
    bad, whole = set(), tables.merge

    def merge(folder, name, rows):
        if name == "histograms" and bad & set(rows["site"].to_pylist()):
            raise OSError("cannot be merged")
        return whole(folder, name, rows)

    monkeypatch.setattr(merging, "merge", merge)
    return bad


def test_a_package_that_cannot_be_merged_holds_up_no_other_site(world, bergen, failing, tmp_path):
    failing.add("bergen")
    world.put(*bergen)
    world.put(*sent.chain("narvik", 2), site="narvik")
    done = world.receive()
    assert (done.packages, done.failed) == (2, [("bergen", "OSError('cannot be merged')")])
    assert heads.read(world.tables).keys() == {"narvik"} and done.refused == []
    assert (world.root / "bergen" / bergen[0][0]).exists()
    assert world.receive(passing_over=["bergen"]) == inbox.Received(0, 0, 0, 0, [], [], set())
    failing.clear()
    assert world.receive().packages == 4
    undisturbed = sent.Arrivals(tmp_path / "undisturbed")
    undisturbed.put(*bergen)
    undisturbed.put(*sent.chain("narvik", 2), site="narvik")
    undisturbed.receive()
    assert world.digest() == undisturbed.digest()


@pytest.mark.parametrize("sites", [["bergen"], ["bergen", "narvik"]])
def test_tables_that_take_nothing_are_an_error(world, failing, sites):
    failing.update(sites)
    for site in sites:
        world.put(*sent.chain(site, 1), site=site)
    with pytest.raises(OSError, match="cannot be merged"):
        world.receive()
    assert heads.read(world.tables) == {}


def test_a_file_that_cannot_be_read_holds_up_no_other_site(world, bergen, monkeypatch):
    whole = packages.read

    def reading(path, *arguments, **options):
        if "bergen" in path.name:
            raise PermissionError(path)
        return whole(path, *arguments, **options)

    monkeypatch.setattr(packages, "read", reading)
    world.put(*bergen)
    world.put(*sent.chain("narvik", 2), site="narvik")
    done = world.receive()
    assert done.packages == 2
    ((site, reason),) = done.failed
    assert site == "bergen" and reason.startswith("bergen-00000001.zip: PermissionError")


@pytest.mark.parametrize(("name", "most"), [("ROWS", 9), ("BYTES", 2_000)])
def test_a_call_takes_no_more_than_it_may_hold(world, bergen, monkeypatch, name, most):
    world.put(*bergen)
    monkeypatch.setattr(inbox, name, most)
    assert world.receive().packages < 4
    while world.receive().packages:
        pass
    assert heads.read(world.tables)["bergen"].number == 4


OLD = tables.schemas()["packages"].names[:12]


def test_tables_of_an_older_version_get_the_new_columns(world, bergen, tmp_path):
    """As a version made them that knew format 1 only: its own columns, and no other table."""
    from deltalake import write_deltalake

    elsewhere = sent.Arrivals(tmp_path / "elsewhere")
    elsewhere.put(*bergen[:2])
    elsewhere.receive()
    for name in ("insights", "feedback", "histograms"):
        kept = tables.existing(elsewhere.tables, name).to_pyarrow_table()
        write_deltalake(str(world.tables / name), kept)
    receipts = tables.existing(elsewhere.tables, "packages").to_pyarrow_table(columns=OLD)
    write_deltalake(str(world.tables / "packages"), receipts)
    assert heads.read(world.tables)["bergen"].number == 2
    world.put(
        (name_of("bergen", 3), package("bergen", 3, hashlib.sha256(bergen[1][1]).hexdigest(), events=0))
    )
    assert world.receive().packages == 1
    by_number = {row["number"]: row for row in tables.rows(world.tables, "packages")}
    assert set(by_number) == {1, 2, 3}
    assert (by_number[1]["complete"], by_number[1]["inventory"], by_number[3]["complete"]) == (None, None, 9)
    assert list(by_number[1]) == tables.schemas()["packages"].names
    assert by_number[1]["name"] == "bergen-00000001.zip" and tables.count(world.tables, "insights") == 9


def test_what_was_received_costs_a_look_at_its_name(world, bergen, monkeypatch):
    world.put(*bergen)
    world.receive()
    world.put(("bergen-00000000.zip.tmp", b""), ("a", b""), ("bergen-1234567x.zip", b""))
    world.put((name_of("bergen", 99_999_999), b""), (name_of("bergen", 100_000_000), b""))
    world.put(("bergen-٠٠٠٠٠٠٠١.zip", b""))
    new, strays = inbox.arrived(world.root, heads.read(world.tables))
    assert [number for _, number, _ in sorted(new)] == [99_999_999, 100_000_000]
    assert {path.name for path in strays} == {
        "bergen-00000000.zip.tmp",
        "a",
        "bergen-1234567x.zip",
        "bergen-٠٠٠٠٠٠٠١.zip",
    }
    monkeypatch.setattr(packages, "NAME", None)
    for path in (*strays, *(path for _, _, path in new)):
        path.unlink()
    assert inbox.arrived(world.root, heads.read(world.tables)) == ([], [])
