"""A site's road home at its disk: what is remembered of the link, when to send, what comes back."""

from __future__ import annotations

import json
import random

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from edge_ai_assets import usecase as usecases
from edge_ai_assets.delivery import bundle, pack, signing
from edge_ai_assets.delivery.errors import DeliveryError
from edge_ai_assets.delivery.layout import Layout
from edge_ai_assets.home import Home
from edge_ai_assets.ml.lineage import Lineage
from edge_ai_assets.returns.outbox.outbox import Outbox
from edge_ai_assets.returns.road import acks
from edge_ai_assets.returns.road.connectivity import SECOND, State, Timing
from edge_ai_assets.returns.road.link import Link
from edge_ai_assets.returns.road.uplink import DiodeUplink, FolderUplink
from edge_ai_assets.stack_hub import connecting, delivery, provision
from edge_ai_assets.stack_hub.connecting import NoRoad, apply_ack, apply_acks_of, known, look, report, send
from edge_ai_assets.usecase import Road
from edge_ai_assets_tests.parcels import seal
from edge_ai_assets_tests.tiny_model import tiny_release

USECASE = """
name: pump
runs: {column: run}
label: {column: fault, positive: [1]}
features: [{name: Flow}]
returns: {kilobytes_per_second: 250}
sites: [{name: bergen}, {name: submarine, road: diode}, {name: narvik, road: media}]
"""
AZURE = Ed25519PrivateKey.from_private_bytes(b"azure release key, of the tests!")
NOW = 1_760_000_000 * SECOND
TIMING = Timing(idle=60, quick=1, first=5, most=300)


@pytest.fixture
def home(tmp_path):
    return Home(tmp_path)


def site_of(home, name):
    site = home.site(name)
    site.keys.mkdir(parents=True)
    pem = AZURE.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    provision.release_key(site).write_bytes(pem)
    return site


@pytest.fixture
def site(home):
    return site_of(home, "bergen")


@pytest.fixture
def way(home, site):
    return FolderUplink(home.uplink, "bergen", Link(site.root))


def sealed(site, sizes):
    with Outbox(site.outbox) as outbox:
        return seal(outbox, site.spool, site.name, sizes)


def looked(site, way, seconds, chance=lambda: 0.0):
    return look(site, way, NOW + round(seconds * SECOND), chance=chance, timing=TIMING)


@pytest.mark.parametrize(
    ("name", "kind"), [("bergen", FolderUplink), ("submarine", DiodeUplink), ("narvik", type(None))]
)
def test_each_road_of_the_use_case_has_its_way(home, name, kind):
    way = connecting.road(home.site(name), usecases.loads(USECASE), home.uplink)
    assert type(way) is kind
    if way:
        assert (way.site, way.folder, way.pace.rate) == (name, home.uplink / name, 250_000)


def test_a_link_is_found_out_and_what_waits_is_due_at_once(home, site, way):
    assert known(site).state is State.UNKNOWN
    assert not looked(site, way, 0).upload_due  # nothing waits
    assert known(site).state is State.CONNECTED
    sealed(site, [10])
    assert looked(site, way, 1).upload_due
    assert looked(site, way, 61).upload_due
    send(site, way, lambda: NOW + 62 * SECOND)
    assert not looked(site, way, 63).upload_due


def test_one_failure_one_quick_retry_then_slow_ones(site, way):
    sealed(site, [10])
    assert looked(site, way, 0).state is State.CONNECTED
    way.link.cut()
    first = looked(site, way, 60)
    assert (first.state, first.upload_due, first.changed.before) == (State.TRYING, False, State.CONNECTED)
    assert len(looked(site, way, 60.5).changes) == 2  # nobody said that they were told
    second = looked(site, way, 61)
    assert (second.state, second.changed.seconds, second.link.flaps) == (State.DISCONNECTED, 1, 1)
    assert "edge-ai link up" in second.link.reason
    way.link.restore()
    assert looked(site, way, 65).state is State.DISCONNECTED  # nobody asked yet
    back = looked(site, way, 66)
    assert (back.state, back.upload_due, back.changed.before) == (State.CONNECTED, True, State.DISCONNECTED)
    assert back.changed.seconds == 5


def test_what_uploads_meet_is_the_state_and_told_at_the_next_look(site, way):
    sealed(site, [10])
    looked(site, way, 0)
    way.link.cut()
    done = send(site, way, lambda: NOW + 30 * SECOND)
    assert (done.packages, done.waiting) == (0, 1)
    assert known(site).state is State.TRYING
    told = looked(site, way, 30.5)
    assert [change.after for change in told.changes] == [State.CONNECTED, State.TRYING]
    assert not told.upload_due and told.changed.seconds == 30
    assert looked(site, way, 30.6).changes == told.changes
    connecting.forget(site, told.changes[:1])
    assert looked(site, way, 30.7).changes == told.changes[1:]
    way.link.restore()
    send(site, way, lambda: NOW + 31 * SECOND)
    connecting.forget(site, told.changes)
    assert [change.after for change in looked(site, way, 32).changes] == [State.CONNECTED]


def test_a_restart_goes_on_where_it_was(site, way):
    way.link.cut()
    for second in (0, 1, 6, 16):
        looked(site, way, second)
    kept = json.loads((site.root / "connectivity.json").read_bytes())
    assert (kept["link"]["state"], kept["link"]["failures"]) == ("disconnected", 4)
    again = FolderUplink(way.folder.parent, "bergen", Link(site.root))
    assert looked(site, again, 35).link.failures == 4
    assert looked(site, again, 36).link.failures == 5


@pytest.mark.parametrize("text", ["", "{", '{"link": {"state": "asleep"}}', "[]", "\x00"])
def test_a_damaged_note_is_begun_anew(site, way, text, caplog):
    (site.root / "connectivity.json").write_text(text)
    assert looked(site, way, 0).state is State.CONNECTED
    assert "is begun anew" in caplog.text


def test_only_so_many_changes_are_kept_untold(site):
    for number in range(100):
        report(site, NOW + number, None if number % 2 else "down")
    assert len(json.loads((site.root / "connectivity.json").read_bytes())["untold"]) == connecting.UNTOLD


def test_a_look_that_finds_nothing_new_writes_nothing(site, way):
    looked(site, way, 0)
    before = (site.root / "connectivity.json").stat()
    for second in range(1, 60):
        looked(site, way, second)
    assert (site.root / "connectivity.json").stat().st_mtime_ns == before.st_mtime_ns


def test_a_probe_brings_the_acknowledgement(site, way):
    rows = sealed(site, [10, 10])
    send(site, way, lambda: NOW)
    (way.folder / acks.NAME).write_bytes(acks.make("bergen", 2, rows[1].digest, 9, AZURE))
    assert looked(site, way, 30).acknowledged == 0  # not idle for long enough
    found = looked(site, way, 61)
    assert (found.acknowledged, found.state) == (2, State.CONNECTED)
    assert looked(site, way, 200).acknowledged == 0
    with Outbox(site.outbox) as outbox:
        assert [row.acknowledged_at for row in outbox.packages()] == [NOW + 61 * SECOND] * 2


def test_a_forged_acknowledgement_does_not_close_the_road(site, way, caplog):
    rows = sealed(site, [10])
    way.folder.mkdir(parents=True)
    (way.folder / acks.NAME).write_bytes(
        acks.make("bergen", 1, rows[0].digest, 9, Ed25519PrivateKey.generate())
    )
    found = looked(site, way, 0)
    assert (found.state, found.upload_due, found.acknowledged) == (State.CONNECTED, True, 0)
    assert "an acknowledgement is ignored" in caplog.text


# A diode.


@pytest.fixture
def submarine(home):
    return site_of(home, "submarine")


def test_a_diode_is_never_asked_and_tried_again_when_a_retry_is_due(home, submarine, monkeypatch):
    way = DiodeUplink(home.uplink, "submarine", Link(submarine.root))
    monkeypatch.setattr(DiodeUplink, "probe", lambda self: pytest.fail("probed"))
    monkeypatch.setattr(DiodeUplink, "acknowledgement", lambda self: pytest.fail("asked"))
    assert not looked(submarine, way, 0).upload_due
    sealed(submarine, [10])
    assert looked(submarine, way, 0).upload_due
    way.link.cut()
    assert send(submarine, way, lambda: NOW).waiting == 1
    assert not looked(submarine, way, 0.5).upload_due
    assert looked(submarine, way, 1).upload_due
    assert send(submarine, way, lambda: NOW + SECOND).waiting == 1
    assert known(submarine).state is State.DISCONNECTED
    way.link.restore()
    assert looked(submarine, way, 400).upload_due
    assert send(submarine, way, lambda: NOW + 400 * SECOND).packages == 1
    assert known(submarine).state is State.CONNECTED
    assert not looked(submarine, way, 1000).upload_due


# By hand.


def test_where_everything_is_carried_nothing_is_touched(home):
    site = site_of(home, "narvik")
    sealed(site, [10])
    before = sorted(path for path in home.root.rglob("*") if "outbox" not in path.name)
    found = looked(site, None, 0)
    assert (found.state, found.upload_due, found.changes) == (State.UNKNOWN, False, ())
    with pytest.raises(NoRoad, match="edge-ai returns export --site narvik --to DIR"):
        send(site, None)
    assert sorted(path for path in home.root.rglob("*") if "outbox" not in path.name) == before


# Acknowledgements that came otherwise.


def test_an_acknowledgement_in_a_bundle_is_applied(site, monkeypatch, tmp_path):
    rows = sealed(site, [10, 10])
    held = {"bergen": acks.make("bergen", 1, rows[0].digest, 9, AZURE), "oslo": b"x"}
    monkeypatch.setattr(bundle, "acks", lambda path: held)
    done = apply_acks_of(site, tmp_path / "pump-1.bundle", NOW)
    assert (done.number, done.packages, done.refused) == (1, 1, None)
    del held["bergen"]
    assert apply_acks_of(site, tmp_path / "pump-1.bundle", NOW) is None


def test_what_is_no_bundle_is_an_error(site, tmp_path):
    (tmp_path / "x.bundle").write_bytes(b"x")
    with pytest.raises(DeliveryError):
        apply_acks_of(site, tmp_path / "x.bundle", NOW)


def test_a_site_without_an_outbox_or_a_key_believes_nothing(home, site):
    data = acks.make("bergen", 1, "0" * 64, 9, AZURE)
    assert "no outbox yet" in apply_ack(site, data, NOW).refused
    rows = sealed(site, [10])
    provision.release_key(site).unlink()
    assert "signature" in apply_ack(site, acks.make("bergen", 1, rows[0].digest, 9, AZURE), NOW).refused


def test_flaps_at_any_moment_lose_and_double_nothing(site, way):
    """The link is cut and restored, packages are sealed, the clock jumps: all is sent, and once."""
    chance = random.Random(11)
    second, rows = 0.0, []
    for _ in range(300):
        second += chance.choice([0.5, 2, 30, 400])
        if chance.random() < 0.02:
            second += chance.choice([-1, 1]) * 365 * 86_400
        if chance.random() < 0.1:
            rows += sealed(site, [chance.randint(0, 3_000)])
        chance.choice([way.link.cut, way.link.restore])()
        if looked(site, way, second, chance.random).upload_due:
            if chance.random() < 0.3:
                way.link.cut()
            send(site, way, lambda at=second: NOW + round(at * SECOND))
    way.link.restore()
    for _ in range(2):
        second += 300
        if looked(site, way, second, chance.random).upload_due:
            send(site, way, lambda at=second: NOW + round(at * SECOND))
    assert len(rows) > 15
    assert sorted(path.name for path in way.folder.glob("*.zip")) == [row.name for row in rows]
    assert known(site).state is State.CONNECTED


# With a bundle that was carried here.


@pytest.fixture
def provisioned(home):
    """A site whose first release came by its link, Azure's signing key, and packages on their way."""
    released(home, 1)
    site = provision.provision(home, "bergen")
    delivery.fetch(site, home.registry, Road.LINK)
    site.media.mkdir(exist_ok=True)
    return site, signing.load_private(home.keys / f"{pack.KEY}.pem"), sealed(site, [10, 10, 10])


def released(home, number):
    model = tiny_release(home.candidates / f"run-{number}", bias=-float(number), usecase=True)
    (model / "metrics.json").write_text(json.dumps({"f1": 0.9}))
    (model / "model_card.md").write_text("A tiny model.")
    Lineage(training_run=f"run-{number}", training_set="set", usecase="digest").write(model)
    return pack.release(model, home.registry, home.keys, "tiny")


def carried(home, site, key, acknowledged):
    """Carry a bundle of the newest release to the site."""
    newest = pack.newest(home.registry, home.keys)
    return bundle.build(
        Layout(home.registry), newest.version, site.media, [key.public_key()], acks=acknowledged
    )


def acknowledged_at(site):
    with Outbox(site.outbox) as outbox:
        return [row.number for row in outbox.packages() if row.acknowledged_at is not None]


def test_a_bundle_brings_a_release_and_the_acknowledgement(home, provisioned):
    site, key, rows = provisioned
    released(home, 2)
    held = {"bergen": acks.make("bergen", 2, rows[1].digest, 9, key), "oslo": b"of another site"}
    carried(home, site, key, held)
    found = delivery.fetch(site, home.registry, Road.MEDIA)
    assert (found.release.version, found.acknowledged, found.refused) == (2, 2, {})
    assert acknowledged_at(site) == [1, 2]
    assert delivery.fetch(site, home.registry, Road.MEDIA).acknowledged == 0


def test_a_bundle_of_the_release_that_runs_brings_the_acknowledgement_all_the_same(home, provisioned):
    site, key, rows = provisioned
    carried(home, site, key, {"bergen": acks.make("bergen", 3, rows[2].digest, 9, key)})
    found = delivery.fetch(site, home.registry, Road.MEDIA)
    assert (found.release.version, found.acknowledged) == (1, 3)


def test_a_forged_acknowledgement_in_a_bundle_does_not_keep_its_release_out(home, provisioned, caplog):
    site, key, rows = provisioned
    released(home, 2)
    forged = acks.make("bergen", 2, rows[1].digest, 9, Ed25519PrivateKey.generate())
    carried(home, site, key, {"bergen": forged})
    found = delivery.fetch(site, home.registry, Road.MEDIA)
    assert (found.release.version, found.acknowledged, acknowledged_at(site)) == (2, 0, [])
    assert "an acknowledgement is ignored" in caplog.text
