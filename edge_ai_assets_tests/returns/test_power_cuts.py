"""Power is lost while packages travel: what left is in the ledger, what counts as away is there, no name has
half a file.

Each promise is tested twice: with all that the code syncs, and with one sync left out at a time, which must
be noticed. The outbox syncs by itself; what it is told marks the moments from which a promise holds.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from edge_ai_assets.delivery import durable
from edge_ai_assets.returns.egress.ledger import Entry, Ledger, entries
from edge_ai_assets.returns.outbox.outbox import Outbox
from edge_ai_assets.returns.road import media, uplink
from edge_ai_assets.returns.road.link import Link
from edge_ai_assets_tests.parcels import parcel, seal
from edge_ai_assets_tests.power import Disk

BLOCK = 1_000


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    for module in (media, uplink):
        monkeypatch.setattr(module, "BLOCK", BLOCK)


class Voyage:
    """A site and its packages on a disk whose power may go, and where they go to, on the same disk.

    Args:
        found: where they go to there is `nothing` or the `folder`. Or a process was killed before: when it
            had written its first `line`, or when the `packages` had their names.
        careless: see `Disk`.
    """

    def __init__(self, folder: Path, found: str, careless: str = "") -> None:
        self.root = folder / "disk"
        self.spool, self.away = self.root / "site/spool", self.root / "away/bergen"
        for each in (self.spool, self.away.parent if found == "nothing" else self.away):
            each.mkdir(parents=True)
        (self.spool / uplink.LOCK).touch()
        self.outbox = Outbox(folder / "outbox.db")
        self.rows = seal(self.outbox, self.spool, "bergen", [100, 2_500])
        self.whole = {row.name: (self.spool / row.name).read_bytes() for row in self.rows}
        self.ledger = Ledger(self.root / "site/ledger.jsonl")
        self.told: set[str] = set()
        """Packages of which the outbox was told that they are there."""
        for name in ("exported", "uploaded"):
            setattr(self.outbox, name, self._telling(getattr(self.outbox, name)))
        if found in ("line", "packages"):
            for row in self.rows if found == "packages" else self.rows[:1]:
                self.ledger.append(Entry(1, row.name, row.digest, 0, row.bytes, "p", "before"))
            self.ledger = Ledger(self.ledger.path)
        if found == "packages":
            (self.away / ".partial").mkdir()
            for name, data in self.whole.items():
                (self.away / name).write_bytes(data)
        self.disk = Disk(self.root, folder, [careless])
        if found == "packages":
            self.disk.unsync(self.away)
        if found == "line":
            self.disk.unsync(self.root / "site")

    def _telling(self, true: Callable[[int, int], None]) -> Callable[[int, int], None]:
        def told(number: int, at: int) -> None:
            true(number, at)
            self.told.add(self.rows[number - 1].name)
            self.disk.check(self.check)

        return told

    def check(self, state: Path) -> None:
        """Of a state that a power cut could leave."""
        there = {path.name: path.read_bytes() for path in (state / "away").rglob("*.zip")}
        for name, data in there.items():
            assert data == self.whole[name], f"{name} has its name, and is not whole"
        assert self.told <= set(there), "what counts as away is gone"
        noted = dict.fromkeys(self.whole, 0)
        for entry in entries(state / "site/ledger.jsonl"):
            assert entry.first <= noted[entry.package]
            noted[entry.package] = max(noted[entry.package], entry.last)
        # Whatever the disk would lose: these bytes are out, somebody may have read them.
        for path in self.away.rglob("*.zip*"):
            name = path.name.removeprefix(".").partition(".zip")[0] + ".zip"
            assert path.stat().st_size <= noted[name], "bytes left that the ledger does not have"


def export(voyage: Voyage) -> None:
    media.export(voyage.outbox, voyage.spool, voyage.ledger, voyage.away)


def lay_out(voyage: Voyage) -> None:
    media.export(voyage.outbox, voyage.spool, voyage.ledger, voyage.away, link=True)


def upload(voyage: Voyage) -> None:
    road = uplink.FolderUplink(voyage.away.parent, "bergen", Link(voyage.root.parent))
    uplink.upload(voyage.outbox, voyage.spool, road, voyage.ledger)


def blind(voyage: Voyage) -> None:
    road = uplink.DiodeUplink(voyage.away.parent, "bergen", Link(voyage.root.parent))
    uplink.upload(voyage.outbox, voyage.spool, road, voyage.ledger)


WAYS = [(export, "folder"), (lay_out, "folder"), (upload, "nothing"), (blind, "nothing")]
KILLED = [(export, "packages"), (upload, "packages"), (blind, "packages"), (export, "line")]


def travel(folder: Path, work: Callable[[Voyage], None], found: str, careless: str = "") -> Voyage:
    voyage = Voyage(folder, found, careless)
    with voyage.disk, voyage.outbox, voyage.disk.watched(voyage.check):
        work(voyage)
    return voyage


@pytest.mark.parametrize(("work", "found"), WAYS + KILLED)
def test_what_counts_as_away_is_there_and_noted(tmp_path, work, found):
    voyage = travel(tmp_path, work, found)
    assert voyage.told == set(voyage.whole)


UNNOTED, TORN, GONE = "the ledger does not have", "is not whole", "is gone"


@pytest.mark.parametrize(
    ("work", "found", "careless", "noticed"),
    [(*way, careless, UNNOTED) for way in WAYS for careless in ("append", "append/")]
    + [
        (export, "folder", "_put", TORN),
        (export, "folder", "_put/", GONE),
        (export, "packages", "export/", GONE),
        (export, "line", "append/", UNNOTED),
        (lay_out, "folder", "_put/", GONE),
        (upload, "nothing", "_blocks", TORN),
        (upload, "nothing", "_publish/", GONE),
        (upload, "nothing", "make_folder/", GONE),
        (upload, "packages", "send/", GONE),
        (blind, "nothing", "_blocks", TORN),
        (blind, "nothing", "_publish/", GONE),
        (blind, "packages", "_publish/", GONE),
    ],
)
def test_each_sync_on_the_way_is_needed(tmp_path, work, found, careless, noticed):
    with pytest.raises(AssertionError, match=noticed):
        travel(tmp_path, work, found, careless)


# Import.


class Arrival:
    """A medium with a package, and the inbox's folder it is copied to."""

    def __init__(self, folder: Path, careless: str = "") -> None:
        self.medium, self.root = folder / "medium", folder / "disk"
        self.medium.mkdir()
        self.root.mkdir()
        self.whole = {f"bergen-0000000{n}.zip": parcel("bergen", n, 900) for n in (1, 2)}
        for name, data in self.whole.items():
            (self.medium / name).write_bytes(data)
        self.disk = Disk(self.root, folder, [careless])

    def check(self, state: Path) -> None:
        for path in state.rglob("bergen/*.zip"):
            assert path.read_bytes() == self.whole[path.name], "it has its name, and is not whole"

    def taken(self, state: Path) -> None:
        self.check(state)
        assert sorted(path.name for path in state.rglob("bergen/*.zip")) == sorted(self.whole)


def arrive(folder: Path, careless: str = "", *, killed: bool = False) -> None:
    at = Arrival(folder, careless)
    with at.disk:
        if killed:
            with at.disk.watched(lambda state: None):
                media.import_(at.medium, at.root / "uplink")
            at.disk.unsync(at.root / "uplink/bergen")
        with at.disk.watched(at.check):
            media.import_(at.medium, at.root / "uplink")
        at.disk.check(at.taken)  # its medium may be wiped


@pytest.mark.parametrize("killed", [False, True])
def test_what_was_imported_outlives_its_medium(tmp_path, killed):
    arrive(tmp_path, killed=killed)


@pytest.mark.parametrize(
    ("careless", "killed"), [("_take", False), ("_take/", False), ("make_folder/", False), ("_take/", True)]
)
def test_each_sync_of_an_import_is_needed(tmp_path, careless, killed):
    with pytest.raises(AssertionError):
        arrive(tmp_path, careless, killed=killed)


# A file that replaces another.


def replace(folder: Path, careless: str = "") -> None:
    root, written = folder / "disk", []
    root.mkdir()
    (root / "a").write_bytes(b"before")

    def check(state: Path) -> None:
        content = (state / "a").read_bytes()
        assert content == b"after" if written else content in (b"before", b"after")

    with Disk(root, folder, [careless]) as disk:
        with disk.watched(check), durable.replacing(root / "a") as file:
            file.write(b"after")
        written.append(True)
        disk.check(check)


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path):
    replace(tmp_path)


@pytest.mark.parametrize("careless", ["replacing", "replacing/"])
def test_each_sync_of_a_replacement_is_needed(tmp_path, careless):
    with pytest.raises(AssertionError):
        replace(tmp_path, careless)
