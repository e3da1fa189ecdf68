"""`edge-ai explain` across the gap: what Azure's side, and what the site's own home, tell of a score."""

from __future__ import annotations

import sqlite3
from datetime import UTC, datetime
from itertools import groupby

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from edge_ai_assets.azure import arrivals
from edge_ai_assets.delivery import pack
from edge_ai_assets.delivery.release import Release
from edge_ai_assets.delivery.store import SiteStore
from edge_ai_assets.explain import UnknownInsight, explain
from edge_ai_assets.explaining import running
from edge_ai_assets.home import Home
from edge_ai_assets.returns.egress.ledger import Entry, Ledger
from edge_ai_assets.returns.outbox import insights
from edge_ai_assets.returns.outbox.outbox import Batch, Feedback, Outbox, OutboxError, PackageRow
from edge_ai_assets.returns.outbox.schema import Tally
from edge_ai_assets.returns.package import lineage
from edge_ai_assets.returns.package.lineage import Event
from edge_ai_assets.returns.package.parts import Insight, Word
from edge_ai_assets_tests import blocks, sent

USECASE = """
name: pump
runs: {column: run}
label: {column: fault, positive: [1]}
features: [{name: Flow}]
sites: [{name: narvik, road: media}, {name: oslo}]
"""
NAME = "narvik-00000001.zip"
AT = sent.START
IMAGES = {version: f"sha256:{version:064}" for version in (1, 2, 3)}
RUNS = {1: "00000000-0000-4000-8000-00000000aaaa", 2: "gone", 3: ""}
"""Of release 2 nothing is kept, release 3 was not trained here."""
RELEASES = [
    Release(
        usecase="pump",
        version=version,
        image=image,
        created=datetime(2026, 1, version, tzinfo=UTC),
        run_id=RUNS[version],
        data_version="" if version == 3 else f"data{version}",
        metrics={"f1": 0.5},
    )
    for version, image in IMAGES.items()
]


def happened(n, asset, **metadata):
    run = f"00000000-0000-4000-8000-{n:012}"
    made = Event(n, "materialization", tuple(asset.split("/")), "narvik", AT + n, run, "job", metadata)
    return lineage.encode(made)


@pytest.fixture
def azure(tmp_path, monkeypatch):
    """Azure's home: of narvik's scores 1 to 10 the first package brings 1, 3 and 4, and a word on 5."""
    home = Home(tmp_path / "azure")
    monkeypatch.setenv("EDGE_AI_HOME", str(home.root))
    monkeypatch.delenv("EDGE_AI_USECASE", raising=False)
    (home.uplink / "narvik").mkdir(parents=True)
    (home.keys / "sites").mkdir(parents=True)
    pem = sent.KEY.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    (home.keys / "sites" / "narvik.pub.pem").write_bytes(pem)
    home.usecase.write_text(USECASE, "utf-8")
    monkeypatch.setattr(pack, "known", lambda *_: RELEASES)
    monkeypatch.setattr(pack, "withdrawn", lambda *_: {})
    (home.candidates / RUNS[1]).mkdir(parents=True)
    (home.candidates / RUNS[1] / "metrics.json").write_text('{"f1": 0.75}')
    package = sent.package(
        "narvik",
        1,
        "",
        last=8,
        insights=[
            Insight(sequence, AT, IMAGES[version], "anomaly", 0.9, True, {"Flow": 1.0})
            for sequence, version in ((1, 1), (3, 2), (4, 3))
        ],
        feedback=[Word(1, 5, AT, IMAGES[2], False, None, None, {})],
        lineage=[
            happened(1, "site/deployment", release=1),
            happened(2, "site/deployment", release=1),
            happened(3, "site/deployment", release=2),
            happened(4, "site/scores", release=2, scored_rows=6, **{"dagster/row_count": 7}),
            happened(5, "site/egress", package_names=[NAME]),
            happened(6, "site/upload", package_names=[NAME], road="media"),
        ],
        lineage_last=6,
        complete=8,
        counts=Tally(10, 3, 5, 0, 0, 2),
    )
    (home.uplink / "narvik" / NAME).write_bytes(package)
    assert arrivals.receive_all(home).packages == 1
    return home


@pytest.fixture
def ship(tmp_path, monkeypatch):
    """The site's own home: of scores 1 to 9, 2 and 4 are in package 1, 1 expired, 3 and 6 are withheld, 5
    cannot be read, 8 waits to be packed, 9 to be judged."""
    home = Home(tmp_path / "ship")
    site = home.site("narvik")
    site.root.mkdir(parents=True)
    home.joined.write_text("narvik")
    home.usecase.write_text(USECASE, "utf-8")
    monkeypatch.setattr(SiteStore, "releases", lambda _: RELEASES[:2])
    record = b'{"inputs":{"Flow":7.5},"context":{"_run":"march"}}'
    with Outbox(site.outbox) as outbox:
        for rows in (4, None, 3):
            outbox.append(
                [blocks.batch([record] * rows, [0.9] * rows, [True] * rows, release=IMAGES[2], at=AT)]
                if rows
                else [Batch(None, IMAGES[2], AT, [(1, blocks.TORN)])]
            )
        insights.derive(outbox)
        outbox.append([blocks.batch([record], [0.9], [True], release=IMAGES[2], at=AT)])
        outbox.add_feedback([Feedback(seq, True, None, "user", AT) for seq in range(2, 9)])  # these stay
        assert outbox.expire(1, AT, "quota of 1 MB").rows == 1
        outbox.dispose("withheld", {"kind anomaly is not listed": [3]})
        row = PackageRow(1, NAME, "d" * 64, "", 2, 0, 100, AT, exported_at=AT)
        outbox.seal(row, [2, 4], [], {"too few in its group": [6]}, {})
    for first, last in ((0, 60), (60, 100)):
        Ledger(site.ledger).append(Entry(AT, NAME, "d" * 64, first, last, "p" * 64, "media:stick"))
    return home


def test_azure_tells_what_came_and_names_the_commands_for_the_rest(azure):
    found = explain(azure, "narvik/1")
    assert found["ledger"] is None and found["score"] is None
    assert found["elsewhere"] == {
        "ledger": f"in the home of site narvik: edge-ai ledger show --site narvik --package {NAME}",
        "score": "in the home of site narvik: edge-ai explain narvik/1",
    }
    assert found["package"]["road"] == "media" and found["package"]["left_at"].year == 2025
    assert found["completeness"]["watermark"].startswith("complete through 8")
    assert found["model"]["metrics"] == {"f1": 0.75} and found["runs"]["training"] == RUNS[1]


def test_a_restart_is_no_release_and_the_scoring_run_is_named(azure):
    found = explain(azure, "narvik/3")
    since = [row.split(" since ")[0] for row in found["completeness"]["releases"]]
    assert since == ["1", "2"]
    runs = {what: int(run[-4:]) for what, run in found["runs"].items() if what not in ("training", "inbox")}
    assert runs == {"scoring": 4, "packing": 5, "upload": 6}
    assert "scoring" not in explain(azure, "narvik/1")["runs"]  # by request, before that run


@pytest.mark.parametrize(("sequence", "said"), [(3, "no longer kept"), (4, "not trained here")])
def test_a_model_that_was_not_made_here_or_not_kept_is_no_crash(azure, sequence, said):
    found = explain(azure, f"narvik/{sequence}")
    assert said in found["model"]["folder"] and found["model"]["metrics"] == {"f1": 0.5}
    assert said in found["training_set"]["path"] and found["training_set"]["rows"] is None
    assert ("training" in found["runs"]) is (sequence == 3)


def test_what_was_said_of_a_score_that_stayed_is_explained(azure):
    found = explain(azure, "narvik/5")
    assert found["insight"]["came"].startswith("no, it stayed at the site: up to 8 ")
    assert "5 withheld" in found["insight"]["came"]
    assert [word["correct"] for word in found["insight"]["feedback"]] == [False]
    assert found["package"]["name"] == NAME and found["release"]["version"] == 2
    assert "score" in found["elsewhere"]


def test_a_score_that_stayed_and_of_which_nothing_was_said_has_the_release_of_its_run(azure):
    found = explain(azure, "narvik/7")
    assert found["insight"]["came"].startswith("no, it stayed") and found["release"]["version"] == 2
    found = explain(azure, "narvik/8")  # by request: which release made it is known at the site
    assert found["release"] is None and "edge-ai explain narvik/8" in found["elsewhere"]["release"]


@pytest.mark.parametrize(
    ("insight", "said"),
    [
        (
            "narvik/9",
            r"has not come yet \(complete through 8.*; in the home of site narvik, `edge-ai explain",
        ),
        ("narvik/11", "had scored 10 when it made the last package that came, 11 is not among them"),
        ("oslo/1", "nothing of site 'oslo' came home yet"),
        ("paris/1", "no site 'paris' here: there are narvik, oslo"),
        ("narvik/0", "no insight id"),
    ],
)
def test_what_is_not_to_be_found_is_told_apart(azure, insight, said):
    with pytest.raises(UnknownInsight, match=said):
        explain(azure, insight)


def test_the_site_itself_tells_of_package_ledger_and_release(ship):
    found = explain(ship, "narvik/4")
    assert found["score"]["state"] == "in package 1" and found["score"]["fields"] == {"Flow": 7.5}
    assert found["score"]["run"] == "march"
    assert (found["package"]["name"], found["package"]["state"]) == (NAME, "exported")
    assert found["insight"]["came"] == "not known here"
    ledger = found["ledger"]
    assert ledger["verified"] and (ledger["blocks"], ledger["covered"]) == (2, 100)
    assert ledger["destination"] == "media:stick" and ledger["policy"] == "p" * 64
    assert found["release"]["version"] == 2 and found["model"]["metrics"] == {"f1": 0.5}
    assert found["elsewhere"] == {"training_set": "on Azure's side: edge-ai explain narvik/4"}
    assert found["completeness"]["packages"].startswith("1; 1 (100 bytes)")


def test_what_azure_acknowledged_came(ship):
    with Outbox(ship.site("narvik").outbox) as outbox:
        outbox.acknowledge(1, "d" * 64, AT)
    found = explain(ship, "narvik/4")
    assert found["insight"]["came"].startswith("yes") and found["score"]["disposition"] == "packed"


@pytest.mark.parametrize(
    ("sequence", "state"),
    [
        (1, "expired: quota of 1 MB; it is no longer kept here"),
        (3, "withheld: kind anomaly is not listed"),
        (5, "quarantined: its block, of schema 1, could not be read"),
        (6, "withheld: too few in its group"),
        (8, "waits to be packed"),
        (9, "waits to be judged"),
    ],
)
def test_the_site_tells_what_became_of_a_score_that_stayed(ship, sequence, state):
    found = explain(ship, f"narvik/{sequence}")
    said = found["score"]["state"]
    assert said == state if sequence != 5 else said.startswith(state)
    assert found["insight"]["came"] == f"no: {said}"
    assert found["ledger"] == {"note": "nothing of it left"} and "none" in found["package"]["note"]
    assert ("unreadable" in found["score"]) is (sequence == 5)


def test_where_tombstones_overlap_the_site_does_not_guess(ship):
    with sqlite3.connect(ship.site("narvik").outbox) as db:
        db.execute("INSERT INTO tombstones VALUES (0, 'uploaded', 'anomaly', '', 1, 2, 1, ?)", (AT,))
    found = explain(ship, "narvik/1")
    assert found["score"]["state"].startswith("expired: quota of 1 MB or uploaded")
    assert found["insight"]["came"] == "not known here" and "package" in found["elsewhere"]


@pytest.mark.parametrize(
    ("insight", "said"),
    [("narvik/10", "never scored 10: accounted for"), ("oslo/1", "is the home of site 'narvik'")],
)
def test_the_site_knows_what_it_never_scored_and_whose_home_it_is(ship, insight, said):
    with pytest.raises(UnknownInsight, match=said):
        explain(ship, insight)


def test_a_ledger_that_was_changed_is_told_and_the_rest_too(ship):
    path = ship.site("narvik").ledger
    path.write_bytes(path.read_bytes().replace(b"stick", b"stuck"))
    found = explain(ship, "narvik/4")
    assert found["ledger"]["verified"] is False and "jsonl:1" in found["ledger"]["error"]
    assert found["release"]["version"] == 2


def test_a_damaged_outbox_is_one_line_that_names_it(ship):
    path = ship.site("narvik").outbox
    path.write_bytes(b"\0" * path.stat().st_size)
    with pytest.raises(OutboxError, match=r"outbox\.db is no outbox"):
        explain(ship, "narvik/4")


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), max_size=8))
def test_each_score_of_a_run_has_that_run_and_no_other_has_one(spans):
    """Between the runs, so many scores by request."""
    made, expected, last = [], {}, 0
    for number, (requested, rows) in enumerate(spans):
        expected |= {last + requested + row: str(number) for row in range(1, rows + 1)}
        last += requested + rows
        told = {"dagster/row_count": last, "scored_rows": rows}
        made.append(running.Made(str(number), datetime(2026, 1, 1, tzinfo=UTC), told))
    found = {sequence: running.scoring({"site/scores": made}, sequence) for sequence in range(1, last + 3)}
    assert {sequence: run.run for sequence, run in found.items() if run} == expected


@given(st.lists(st.integers(1, 3), max_size=8))
def test_releases_are_those_that_were_deployed_without_their_restarts(versions):
    at = datetime(2026, 1, 1, tzinfo=UTC)
    found = running.releases(
        {"site/deployment": [running.Made("", at, {"release": one}) for one in versions]}
    )
    assert found == [f"{version} since 2026-01-01 00:00" for version, _ in groupby(versions)]
