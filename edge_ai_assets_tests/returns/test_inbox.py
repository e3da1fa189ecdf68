from __future__ import annotations

import hashlib
import random
import shutil
from datetime import date

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_ai_assets.returns.egress.policy import Histogram
from edge_ai_assets.returns.inbox import inbox, merging, tables
from edge_ai_assets.returns.inbox.inbox import duplicates, insight, receive
from edge_ai_assets.returns.package.packages import build
from edge_ai_assets.returns.package.parts import Insight, Word, name_of

DAY = 24 * 3600 * 1_000_000
START = 1_760_000_000_000_000
STRANGER = Ed25519PrivateKey.from_private_bytes(b"x" * 32)


def chain(key, site="bergen", packages=4, rows=3, previous=""):
    """Packages of one site, in order: (name, bytes). Each is of a day of its own and has one feedback."""
    found = []
    for number in range(1, packages + 1):
        first = (number - 1) * rows + 1
        data = build(
            site=site,
            number=number,
            previous=previous,
            policy="p" * 64,
            created_at=START,
            first=first,
            last=first + rows - 1,
            insights=[
                Insight(
                    first + i, START + number * DAY, "r1", "anomaly", 0.9, True, {"Flow": number + i / 10}
                )
                for i in range(rows)
            ],
            feedback=[Word(number, first, START + number * DAY, "r1", True, None, None, {"Flow": 1})],
            histograms=[Histogram("r1", "Flow", 30, (10, 20))],
            key=key,
        )
        previous = hashlib.sha256(data).hexdigest()
        found.append((name_of(site, number), data))
    return found


@pytest.fixture(scope="module")
def bergen(key):
    return chain(key)


class World:
    """An uplink folder and the tables behind it."""

    def __init__(self, folder, key):
        self.root, self.tables, self.quarantine = folder / "uplink", folder / "tables", folder / "quarantine"
        self.keys = {"bergen": [key.public_key()], "narvik": [key.public_key()]}

    def put(self, *named, site="bergen"):
        (self.root / site).mkdir(parents=True, exist_ok=True)
        for name, data in named:
            (self.root / site / name).write_bytes(data)

    def receive(self, **options):
        return receive(self.root, self.tables, self.keys, self.quarantine, **options)

    def content(self):
        """What the tables hold, whatever the order in which it came, but for the time it was received at."""
        found = {}
        for name, key in tables.KEYS.items():
            table = tables.existing(self.tables, name)
            rows = table.to_pyarrow_table().to_pylist() if table else []
            for row in rows:
                row.pop("received_at", None), row.pop("imported_at", None)
            found[name] = sorted(map(str, rows))
            assert len({tuple(row[column] for column in key) for row in rows}) == len(rows)
        return found


@pytest.fixture
def world(tmp_path, key):
    return World(tmp_path, key)


def test_nothing_there_is_nothing_received(world):
    assert world.receive() == inbox.Received(0, 0, 0, 0, [], [], set())
    assert duplicates(world.tables) == 0


def test_packages_become_rows(world, bergen):
    world.put(*bergen)
    done = world.receive(now=lambda: START)
    assert (done.packages, done.insights, done.feedback, done.repeated) == (4, 12, 4, 0)
    assert (done.refused, done.waiting) == ([], [])
    assert done.days == {date(2025, 10, day) for day in (10, 11, 12, 13)}
    assert [tables.count(world.tables, name) for name in tables.KEYS] == [12, 4, 4, 0, 0, 0, 4]
    found = insight(world.tables, "bergen", 5)
    assert (found["fields"], found["kind"], found["day"]) == ({"Flow": 2.1}, "anomaly", date(2025, 10, 11))
    assert (found["package"]["number"], found["package"]["digest"]) == (
        2,
        hashlib.sha256(bergen[1][1]).hexdigest(),
    )
    assert found["feedback"] == []
    assert insight(world.tables, "bergen", 4)["feedback"][0]["id"] == 2


@pytest.mark.parametrize(("site", "sequence"), [("bergen", 99), ("narvik", 1)])
def test_an_insight_that_is_not_there_is_a_key_error(world, bergen, site, sequence):
    world.put(*bergen[:1])
    world.receive()
    with pytest.raises(KeyError, match=f"no insight {sequence}"):
        insight(world.tables, site, sequence)


def test_receiving_again_changes_nothing(world, bergen):
    world.put(*bergen)
    world.receive()
    before = world.content()
    assert world.receive() == inbox.Received(0, 0, 0, 0, [], [], set())
    assert world.content() == before
    assert sorted(path.name for path in (world.root / "bergen").iterdir()) == [name for name, _ in bergen]


def test_a_gap_is_waited_for(world, bergen):
    world.put(bergen[0], bergen[2], bergen[3])
    done = world.receive()
    assert (done.packages, done.waiting) == (1, [("bergen", 2)])
    assert world.receive().waiting == [("bergen", 2)]
    world.put(bergen[1])
    done = world.receive()
    assert (done.packages, done.waiting) == (3, [])


def test_the_limit_is_kept_and_sites_take_turns(world, bergen, key):
    world.put(*bergen)
    world.put(*chain(key, "narvik", 2), site="narvik")
    world.receive(limit=3)
    assert {row["site"] for row in tables.rows(world.tables, "packages", ["site"])} == {"bergen", "narvik"}
    assert world.receive(limit=10).packages == 3
    assert world.receive().packages == 0


def test_sequences_of_two_sites_do_not_meet(world, bergen, key):
    world.put(*bergen)
    world.put(*chain(key, "narvik"), site="narvik")
    assert world.receive().insights == 24
    assert duplicates(world.tables) == 0


def refused(world, done):
    """The one refused file: (site/name, reason), after checking that it is kept with its reason."""
    ((name, reason),) = done.refused
    folder, _, file = name.partition("/")
    assert (world.quarantine / folder / file).exists()
    assert (world.quarantine / folder / f"{file}.reason.txt").read_text() == f"{reason}\n"
    assert not (world.root / folder / file).exists()
    assert done.packages == 0
    return name, reason


def test_a_damaged_package_goes_to_quarantine_and_the_rest_waits(world, bergen):
    name, data = bergen[0]
    world.put((name, data[:-1] + b"x"), bergen[1])
    done = world.receive()
    assert refused(world, done)[0] == f"bergen/{name}"
    assert done.waiting == [("bergen", 1)]
    world.put(bergen[0])
    assert world.receive().packages == 2


def test_a_strangers_package_goes_to_quarantine(world):
    world.put(*chain(STRANGER, packages=1))
    assert "signature" in refused(world, world.receive())[1]


def test_a_package_in_the_folder_of_another_site_goes_to_quarantine(world, bergen):
    world.put(bergen[0], site="narvik")
    assert "not the name of a package of site 'narvik'" in refused(world, world.receive())[1]


def test_a_package_renamed_for_another_site_goes_to_quarantine(world, bergen):
    world.put((name_of("narvik", 1), bergen[0][1]), site="narvik")
    assert "signed name is bergen-00000001.zip" in refused(world, world.receive())[1]


def test_a_package_of_an_unknown_site_goes_to_quarantine(world, key):
    world.put(*chain(key, "oslo", 1), site="oslo")
    assert "no key of site 'oslo'" in refused(world, world.receive())[1]


def test_a_package_of_another_chain_goes_to_quarantine(world, bergen, key):
    world.put(bergen[0])
    world.receive()
    world.put(chain(key, previous="f" * 64)[1])
    assert "it follows" in refused(world, world.receive())[1]


@pytest.mark.parametrize(
    "name", ["notes.txt", "bergen-1.zip", "bergen-000000001.zip", "bergen-00000001.zip.tmp"]
)
def test_a_stray_file_goes_to_quarantine(world, name):
    world.put((name, b"x"))
    assert "not the name" in refused(world, world.receive())[1]


def test_hidden_files_and_folders_are_left_alone(world, bergen):
    world.put((".lock", b""))
    (world.root / "bergen" / ".partial").mkdir()
    assert world.receive().refused == []


def test_a_second_file_of_the_same_name_is_quarantined_beside_the_first(world, bergen):
    name = bergen[0][0]
    for content in (b"one", b"two"):
        world.put((name, content))
        world.receive()
    kept = {
        path.read_bytes()
        for path in (world.quarantine / "bergen").glob("*.zip*")
        if "reason" not in path.name
    }
    assert kept == {b"one", b"two"}


def test_a_package_larger_than_allowed_goes_to_quarantine(world, bergen):
    world.put(bergen[0])
    assert "more than 50 bytes" in refused(world, world.receive(max_bytes=50))[1]


@pytest.mark.parametrize("written", range(len(tables.KEYS)))
def test_a_crash_between_tables_is_healed_by_receiving_again(
    world, bergen, monkeypatch, tmp_path, key, written
):
    world.put(*bergen)
    whole, left = tables.merge, [written]

    def dying(*arguments):
        if left[0] == 0:
            raise KeyboardInterrupt
        left[0] -= 1
        return whole(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(merging, "merge", dying)
        with pytest.raises(KeyboardInterrupt):
            world.receive()
    done = world.receive()
    assert done.packages == 4
    assert done.insights + done.feedback + done.repeated == 16
    assert len(done.days) == 4
    undisturbed = World(tmp_path / "undisturbed", key)
    undisturbed.put(*bergen)
    undisturbed.receive()
    assert world.content() == undisturbed.content()


def test_a_row_that_is_sent_in_two_packages_counts_once(world, key):
    one = Insight(1, START, "r1", "anomaly", 0.9, True, {"Flow": 1})
    other = Insight(1, START, "r1", "anomaly", 0.9, True, {"Flow": 2})
    parts = {
        "site": "bergen",
        "policy": "",
        "created_at": 1,
        "first": 1,
        "last": 1,
        "feedback": [],
        "histograms": [],
    }
    first = build(number=1, previous="", insights=[one], key=key, **parts)
    second = build(number=2, previous=hashlib.sha256(first).hexdigest(), insights=[other], key=key, **parts)
    world.put((name_of("bergen", 1), first), (name_of("bergen", 2), second))
    done = world.receive()
    assert (done.insights, done.repeated) == (1, 1)
    assert insight(world.tables, "bergen", 1)["fields"] == {"Flow": 1}


def test_duplicates_are_found(world, bergen):
    from deltalake import write_deltalake

    world.put(bergen[0])
    world.receive()
    path = str(world.tables / "insights")
    write_deltalake(path, tables.existing(world.tables, "insights").to_pyarrow_table(), mode="append")
    assert duplicates(world.tables) == 3


@settings(max_examples=6, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_any_order_overlap_and_repetition_gives_the_same_tables(tmp_path_factory, key, bergen, seed):
    """Packages of two sites come in any order, some twice, some damaged first, received at any moments."""
    chance = random.Random(seed)
    world = World(tmp_path_factory.mktemp("order"), key)
    coming = [("bergen", *item) for item in bergen] + [("narvik", *item) for item in chain(key, "narvik", 2)]
    events = coming + chance.sample(coming, 3)
    chance.shuffle(events)
    for site, name, data in events:
        world.put((name, data[:-9] if chance.random() < 0.2 else data), site=site)
        if chance.random() < 0.4:
            world.receive(limit=chance.randint(1, 4))
    for site, name, data in coming:
        world.put((name, data), site=site)
    while world.receive().packages:
        pass
    expected = World(tmp_path_factory.mktemp("expected"), key)
    for site, name, data in coming:
        expected.put((name, data), site=site)
    expected.receive()
    assert world.content() == expected.content()
    assert duplicates(world.tables) == 0
    shutil.rmtree(world.root.parent)
