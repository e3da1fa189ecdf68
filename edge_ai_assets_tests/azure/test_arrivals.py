"""What Azure says of its sites, and to them: watermarks, acknowledgements, and publication that waits."""

from __future__ import annotations

import os
from types import SimpleNamespace

import dagster as dg
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from edge_ai_assets import keys, usecase
from edge_ai_assets.azure import arrivals, gold, watch
from edge_ai_assets.azure.arriving import Arriving
from edge_ai_assets.azure.assets import insights as assets
from edge_ai_assets.delivery import pack, signing
from edge_ai_assets.home import Home
from edge_ai_assets.interfaces import SITE_CHAIN
from edge_ai_assets.metadata import plain
from edge_ai_assets.resources.mirror.home_mirror import HomeMirror
from edge_ai_assets.returns.inbox import daily, heads, tables
from edge_ai_assets.returns.road import acks
from edge_ai_assets_tests import sent
from edge_ai_assets_tests.parcels import parcel

CASE = usecase.loads("""
name: mill
runs: {column: run}
features: [{name: Flow}]
label: {column: fault, positive: [1]}
returns: {publish: complete, stale_days: 14}
sites: [{name: bergen}, {name: narvik}, {name: oslo}]
""")
ALWAYS = CASE.model_copy(update={"returns": CASE.returns.model_copy(update={"publish": "always"})})
BERGEN, NARVIK = sent.chain("bergen", 3), sent.chain("narvik", 4)
DAYS = sent.DAY


@pytest.fixture
def home(tmp_path):
    """A home with the keys of two of its three sites."""
    home = Home(tmp_path)
    (home.keys / "sites").mkdir(parents=True)
    pem = sent.KEY.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    for site in ("bergen", "narvik"):
        (home.keys / "sites" / f"{site}.pub.pem").write_bytes(pem)
    return home


def put(home, site, *named):
    (home.uplink / site).mkdir(parents=True, exist_ok=True)
    for name, data in named:
        (home.uplink / site / name).write_bytes(data)


def sentences(home, case=CASE, **options):
    return {mark.site: mark.sentence for mark in arrivals.watermarks(home, case, **options)}


def test_every_site_has_a_watermark(home):
    put(home, "bergen", *BERGEN)
    put(home, "narvik", NARVIK[0], NARVIK[2], ("narvik-00000002.zip", b"torn"))
    arrivals.receive_all(home)
    assert sentences(home) == {
        "bergen": "complete through 9; 2 scores still at the site",
        "narvik": "complete through 3; 1 gap (package 2); 2 scores still at the site",
        "oslo": "nothing came yet",
    }
    put(home, "narvik", NARVIK[1])
    arrivals.receive_all(home)
    assert sentences(home)["narvik"] == "complete through 9; 2 scores still at the site"


def flipped(data: bytes) -> bytes:
    """With a member that is not what the signed manifest says."""
    place = data.index(b"PAR1")
    return data[:place] + b"X" + data[place + 1 :]


def test_a_damaged_package_that_the_site_signed_is_one_that_was_refused(home):
    put(home, "narvik", NARVIK[0], (NARVIK[1][0], flipped(NARVIK[1][1])))
    assert [name for name, _ in arrivals.receive_all(home).refused] == ["narvik/narvik-00000002.zip"]
    assert sentences(home)["narvik"].startswith("complete through 3; package 2 refused")
    put(home, "narvik", NARVIK[1])
    arrivals.receive_all(home)
    assert "refused" not in sentences(home)["narvik"]


FORGED = [
    ("narvik-99999999.zip", parcel("narvik", 99_999_999, 10)),
    ("narvik-00000002.zip", parcel("narvik", 2, 10)),
    ("narvik-00000003.zip", NARVIK[3][1]),  # genuine, under another name
    ("narvik-00000004.zip", sent.chain("bergen", 4)[3][1]),  # another site's
    ("narvik-00000005.zip", b"torn"),
]


@pytest.mark.parametrize(("name", "data"), FORGED, ids=[name for name, _ in FORGED])
def test_what_nobody_signed_makes_no_gap_and_no_refused_package(home, name, data):
    put(home, "narvik", NARVIK[0], (name, data))
    put(home, "bergen", *BERGEN)
    assert "gap" not in sentences(home)["narvik"], "not even before the inbox looked"
    done = arrivals.receive_all(home)
    assert [refused for refused, _ in done.refused] == [f"narvik/{name}"] and done.waiting == []
    assert (home.refused / "narvik" / name).exists()
    assert sentences(home)["narvik"] == "complete through 3; 2 scores still at the site"
    assert arrivals.held_back(home, CASE) == []


def test_a_site_that_is_silent_becomes_stale(home):
    put(home, "bergen", *BERGEN)
    arrivals.receive_all(home)
    now = heads.read(home.tables)["bergen"].received_at
    os.utime(home.keys / "sites" / "narvik.pub.pem", (now / 1e6 - 30 * 86_400,) * 2)
    assert sentences(home, now=lambda: now + 14 * DAYS) == {
        "bergen": "complete through 9; 2 scores still at the site",
        "narvik": "nothing came yet; 44 days stale",
        "oslo": "nothing came yet",
    }
    assert "; 15 days stale" in sentences(home, now=lambda: now + 15 * DAYS)["bergen"]


def test_a_site_that_the_use_case_no_longer_has_is_still_seen(home):
    put(home, "bergen", *BERGEN)
    arrivals.receive_all(home)
    assert set(sentences(home, CASE.alone("oslo"))) == {"bergen", "oslo"}


def test_a_site_that_the_use_case_no_longer_has_holds_nothing_back(home):
    put(home, "bergen", *BERGEN)
    put(home, "narvik", NARVIK[0], NARVIK[2])
    arrivals.receive_all(home)
    now = heads.read(home.tables)["bergen"].received_at + 40 * DAYS
    left = CASE.alone("oslo")
    assert "stale" not in sentences(home, left, now=lambda: now)["bergen"]
    assert arrivals.held_back(home, left, lambda: now) == []
    held = {mark.site for mark in arrivals.held_back(home, CASE, lambda: now)}
    assert held == {"bergen", "narvik"}


class TestAcknowledging:
    @pytest.fixture
    def public(self, home):
        signing.create(home.keys, pack.KEY)
        return [signing.load_public(home.keys / f"{pack.KEY}.pub.pem")]

    def test_without_a_release_key_there_is_nothing_to_sign_with(self, home):
        put(home, "bergen", *BERGEN)
        arrivals.receive_all(home)
        assert arrivals.acks(home) == {} and arrivals.acknowledge(home) == []

    def test_what_was_merged_is_acknowledged_up_to_the_gap(self, home, public):
        put(home, "bergen", *BERGEN)
        put(home, "narvik", NARVIK[0], NARVIK[2])
        assert arrivals.acknowledge(home) == []
        arrivals.receive_all(home)
        assert arrivals.acknowledge(home) == ["bergen", "narvik"]
        found = {site: acks.read(data, site, public) for site, data in arrivals.acks(home).items()}
        assert {site: ack.number for site, ack in found.items()} == {"bergen": 3, "narvik": 1}
        assert found["bergen"].digest == heads.read(home.tables)["bergen"].digest
        assert (home.uplink / "bergen" / ".ack").read_bytes() == arrivals.acks(home)["bergen"]

    def test_it_is_written_only_when_there_is_news(self, home, public):
        put(home, "bergen", *BERGEN[:2])
        put(home, "narvik", *NARVIK)
        arrivals.receive_all(home)
        arrivals.acknowledge(home)
        before = (home.uplink / "narvik" / ".ack").stat().st_ino
        put(home, "bergen", BERGEN[2])
        arrivals.receive_all(home)
        assert arrivals.acknowledge(home) == ["bergen"]
        assert (home.uplink / "narvik" / ".ack").stat().st_ino == before
        assert arrivals.new_packages(home) == [] and arrivals.receive_all(home).refused == []

    def test_one_that_is_lost_or_torn_is_written_again(self, home, public):
        put(home, "bergen", *BERGEN)
        put(home, "narvik", *NARVIK)
        arrivals.receive_all(home)
        arrivals.acknowledge(home)
        (home.uplink / "bergen" / ".ack").unlink()
        (home.uplink / "narvik" / ".ack").write_bytes(b"{")
        assert arrivals.acknowledge(home) == ["bergen", "narvik"]
        assert arrivals.acknowledge(home) == []


@pytest.fixture
def bring_home(home):
    """Run the inbox and what is published; the asset keys made, and the run's checks by name."""
    instance = dg.DagsterInstance.ephemeral()

    def run(case, *selection):
        put(home, "bergen")
        done = dg.materialize(
            [assets.inbox, assets.insights, assets.feedback, assets.drift, assets.report, *SITE_CHAIN],
            instance=instance,
            selection=list(selection) or [keys.INBOX, keys.INSIGHTS, keys.FEEDBACK, keys.DRIFT, keys.REPORT],
            resources={"home": home, "usecase": case, "arriving": Arriving(home), "mirror": HomeMirror(home)},
        )
        assert done.success
        made = {event.asset_key for event in done.get_asset_materialization_events()}
        run.metadata = plain(instance.get_latest_materialization_event(keys.INBOX))
        return made, {check.check_name: check for check in done.get_asset_check_evaluations()}

    return run


EVERYTHING = {keys.INBOX, keys.INSIGHTS, keys.FEEDBACK, keys.DRIFT, keys.REPORT}


def test_nothing_is_published_while_a_site_has_a_gap_and_the_use_case_says_so(home, bring_home):
    put(home, "bergen", BERGEN[0], BERGEN[2])
    made, checks = bring_home(CASE)
    assert made == EVERYTHING - {keys.INSIGHTS, keys.REPORT}
    check = checks["completeness"]
    assert not check.passed and check.severity == dg.AssetCheckSeverity.WARN
    assert "bergen: complete through 3; 1 gap (package 2)" in check.description
    rows = [record.data for record in check.metadata["watermarks"].records]
    assert [row["site"] for row in rows] == ["bergen", "narvik", "oslo"]
    assert (rows[0]["gaps"], rows[0]["complete_through"], rows[0]["lineage_events"]) == (1, 3, 2)
    assert not tables.existing(home.tables, daily.NAME)
    for alone in (keys.INSIGHTS, keys.REPORT):  # as by hand, or by condition
        assert bring_home(CASE, alone)[0] == set()
    assert bring_home(ALWAYS)[0] == EVERYTHING


def test_drift_is_looked_at_and_not_published_while_a_site_has_a_gap(home, bring_home, monkeypatch):
    recorded = []
    monkeypatch.setattr(pack, "newest", lambda *_: SimpleNamespace(image="sha256:aa", version=1))
    monkeypatch.setattr(watch, "drift", lambda *_: [])
    monkeypatch.setattr(gold, "record_drift", lambda *given: recorded.append(given))
    put(home, "bergen", BERGEN[0], BERGEN[2])
    assert keys.DRIFT in bring_home(CASE, keys.DRIFT)[0] and recorded == []
    assert keys.DRIFT in bring_home(ALWAYS, keys.DRIFT)[0] and len(recorded) == 1


def test_what_was_held_back_is_published_once_all_is_there(home, bring_home):
    put(home, "bergen", BERGEN[0], BERGEN[2])
    assert keys.INSIGHTS not in bring_home(CASE)[0]
    put(home, "bergen", BERGEN[1])
    made, checks = bring_home(CASE)
    assert made == EVERYTHING and checks["completeness"].passed
    assert tables.count(home.tables, daily.NAME) == 3
    (row,) = (row for row in bring_home.metadata["watermarks"].records if row.data["site"] == "bergen")
    assert row.data["state"] == "complete through 9; 2 scores still at the site"


def test_a_stale_site_holds_back_too(home, bring_home):
    put(home, "bergen", *BERGEN)
    assert keys.REPORT in bring_home(CASE)[0]
    os.utime(home.keys / "sites" / "narvik.pub.pem", (0, 0))
    made, checks = bring_home(CASE)
    assert keys.REPORT not in made and not checks["completeness"].passed
    assert "narvik: nothing came yet" in checks["completeness"].description


def test_packages_that_cannot_be_merged_are_an_error_of_the_check(home, bring_home, monkeypatch):
    from edge_ai_assets.returns.inbox import merging

    whole = tables.merge

    def merge(folder, name, rows):
        if name == "histograms" and "narvik" in rows["site"].to_pylist():
            raise OSError("no")
        return whole(folder, name, rows)

    monkeypatch.setattr(merging, "merge", merge)
    put(home, "bergen", *BERGEN)
    put(home, "narvik", *NARVIK)
    made, checks = bring_home(ALWAYS)
    assert made == EVERYTHING and bring_home.metadata["packages"] == 3
    check = checks["completeness"]
    assert not check.passed and check.severity == dg.AssetCheckSeverity.ERROR
    assert [record.data["site"] for record in check.metadata["failed"].records] == ["narvik"]
