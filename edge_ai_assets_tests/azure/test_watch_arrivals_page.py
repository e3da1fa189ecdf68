"""Drift from histograms, and packages that arrived."""

from types import SimpleNamespace

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from edge_ai_assets import usecase
from edge_ai_assets.azure import arrivals, watch
from edge_ai_assets.delivery import pack, signing
from edge_ai_assets.home import Home
from edge_ai_assets.returns.inbox import heads, inbox, tables
from edge_ai_assets.returns.inbox.heads import Head
from edge_ai_assets.returns.inbox.inbox import Received
from edge_ai_assets.scoring import contract
from edge_ai_assets.scoring.contract import Contract, Input, Reference

CASE = usecase.loads("""
name: mill
runs: {column: run}
features: [{name: Flow}]
label: {column: fault, positive: [1]}
drift: {rows: 50}
sites: [{name: north}, {name: south}]
""")


@pytest.fixture
def home(tmp_path):
    return Home(tmp_path)


@pytest.fixture
def released(home, monkeypatch):
    """Release r1 is out; the champion is a later model already, with other bins."""
    for folder, bins in ((home.candidates / "run 1", 2), (home.champion, 3)):
        folder.mkdir(parents=True)
        reference = Reference("Flow", tuple(float(edge) for edge in range(bins - 1)), (50,) * bins, 0.2)
        made = Contract("mill", (Input("Flow", "number", "", "Flow"),), 0.5, "fault", (reference,))
        contract.write(made, folder / "contract.json")
    monkeypatch.setattr(pack, "newest", lambda *_: SimpleNamespace(image="r1", run_id="run 1", version=1))
    return home


@pytest.fixture
def histograms(monkeypatch):
    rows = []
    monkeypatch.setattr(
        tables,
        "rows",
        lambda folder, name, columns=(), **key: [
            row for row in rows if name == "histograms" and row["release"] == key["release"]
        ],
    )

    def add(site, package, counts, release="r1"):
        rows.append(
            {"site": site, "package": package, "feature": "Flow", "counts": counts, "release": release}
        )

    return add


def test_without_a_release_there_is_no_drift_to_see(home):
    assert watch.drift(home, CASE) == [] and watch.champion_release(home) is None
    assert watch.feedback_rows(home, ["north"]) == 0


def test_sites_are_judged_by_the_release_they_run_and_not_by_the_next_champion(released, histograms):
    histograms("south", 1, [60, 0])
    histograms("north", 1, [30, 30])
    histograms("north", 1, [0, 9000], release="r0")
    found = watch.drift(released, CASE)
    assert [(site.name, site.rows, site.verdict.drifted) for site in found] == [
        ("north", 60, False),
        ("south", 60, True),
    ]


@pytest.mark.parametrize(("rows", "judged"), [(49, 0), (50, 1)])
def test_too_few_rows_are_not_judged(released, histograms, rows, judged):
    histograms("north", 1, [rows, 0])
    assert len(watch.drift(released, CASE)) == judged


def test_drift_is_about_the_newest_packages(released, histograms):
    for package in range(1, 40):
        histograms("north", package, [100, 0] if package <= 29 else [50, 50])
    (site,) = watch.drift(released, CASE)
    assert site.rows == 100 and not site.verdict.drifted


def test_a_site_that_sends_a_few_rows_a_package_is_judged_as_well(released, histograms):
    for package in range(1, 40):
        histograms("north", package, [4, 0])
    (site,) = watch.drift(released, CASE)
    assert CASE.drift.rows <= site.rows < CASE.drift.rows + 4 and site.verdict.drifted


@pytest.fixture
def merged(released):
    """Rows of histograms and sketches, as the inbox merges them."""
    import numpy as np
    import pyarrow as pa

    from edge_ai_assets.returns.package import sketches

    def add(name, site, package, values):
        counts = [sum(value <= 0 for value in values), sum(value > 0 for value in values)]
        row = {"site": site, "package": package, "release": "r1", "feature": "Flow", "rows": len(values)}
        row |= {"counts": counts} if name == "histograms" else {"sketch": sketches.make(np.array(values))}
        schema = tables.schemas()[name]
        empty = dict.fromkeys(schema.names)
        tables.merge(released.tables, name, pa.Table.from_pylist([{**empty, **row}], schema))

    return add


DRIFTED, STILL = [-1.0] * 60, [-1.0, 1.0] * 30


@pytest.mark.parametrize(("values", "drifted"), [(DRIFTED, True), (STILL, False)])
def test_drift_is_seen_in_sketches_alone(released, merged, values, drifted):
    merged("sketches", "north", 1, values[:30])
    merged("sketches", "north", 2, values[30:])
    (site,) = watch.drift(released, CASE)
    assert (site.name, site.rows, site.verdict.drifted) == ("north", 60, drifted)
    assert site.counts["Flow"].tolist() == ([60, 0] if drifted else [30, 30])


def test_of_a_package_with_both_the_histogram_counts(released, merged):
    merged("sketches", "north", 1, DRIFTED)
    merged("histograms", "north", 1, STILL)
    merged("sketches", "south", 1, DRIFTED)
    assert [site.verdict.drifted for site in watch.drift(released, CASE)] == [False, True]


def test_a_site_that_counts_into_other_bins_stops_nobody(released, histograms):
    histograms("north", 1, [60, 0, 0])
    histograms("south", 1, [60, 0])
    assert [site.name for site in watch.drift(released, CASE)] == ["south"]


def test_feedback_is_counted_at_the_sites_asked_for(released, monkeypatch):
    rows = [{"site": site} for site in ("north", "north", "south")]
    monkeypatch.setattr(tables, "rows", lambda *_, release: rows if release == "r1" else [])
    assert watch.feedback_rows(released, ["north"]) == 2
    assert watch.feedback_rows(released, []) == 0


def test_keys_are_by_site_whatever_its_name(home):
    for site in ("north", "a.pub", "x-1"):
        key = Ed25519PrivateKey.generate().public_key()
        (home.keys / "sites").mkdir(parents=True, exist_ok=True)
        (home.keys / "sites" / f"{site}.pub.pem").write_bytes(_pem(key))
    assert set(arrivals.site_keys(home)) == {"north", "a.pub", "x-1"}
    assert arrivals.site_keys(Home(home.root / "other")) == {}


def _pem(key):
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def test_receiving_goes_on_until_nothing_is_left_and_adds_up(home, monkeypatch):
    parts = [
        Received(2, 10, 1, 0, [("north/x", "bad")], [("south", 3)], {1}),
        Received(1, 5, 0, 2, [], [("south", 3)], {2}),
        Received(0, 0, 0, 0, [("south/y", "bad")], [("south", 4)], set()),
    ]
    left = iter(parts)
    monkeypatch.setattr(inbox, "receive", lambda *_, **options: next(left))
    found = arrivals.receive_all(home)
    assert (found.packages, found.insights, found.feedback, found.repeated) == (3, 15, 1, 2)
    assert [name for name, _ in found.refused] == ["north/x", "south/y"]
    assert found.waiting == [("south", 4)] and found.days == {1, 2}


@pytest.mark.parametrize(
    ("name", "new"),
    [
        ("north/north-00000002.zip", True),
        ("north/north-00000001.zip", False),
        ("south/south-00000001.zip", True),
        ("north/.partial/north-00000003.zip", False),
        ("north/notes.txt", False),
        ("north-00000009.zip", False),
    ],
)
def test_new_packages_are_those_not_yet_received(home, name, new):
    heads.write(home.tables, {"north": Head(1, "0" * 64)})
    path = home.uplink / name
    path.parent.mkdir(parents=True)
    path.write_bytes(b"")
    assert arrivals.new_packages(home) == ([path.name] if new else [])


def test_a_release_key_is_made_once(home):
    signing.create(home.keys, pack.KEY)
    before = (home.keys / "release.pub.pem").read_bytes()
    assert pack.newest(home.registry, home.keys) is None
    assert (home.keys / "release.pub.pem").read_bytes() == before
