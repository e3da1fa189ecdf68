"""One site and Azure's side of it in functions, on a clock that is set: what the assets call, no Dagster.

Every score has an input `Flow` that is its own sequence, so that on Azure each can be told from all others.
What was promised (a receipt, an id) and what was to stay is noted beside the site, to be compared at the end.
What happens when is up to the tests.
"""

from __future__ import annotations

import errno
import functools
import itertools
import os
import random
import shutil
import sqlite3
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

from edge_ai_assets import usecase as usecases
from edge_ai_assets.azure import arrivals
from edge_ai_assets.delivery import pack, signing
from edge_ai_assets.home import Home
from edge_ai_assets.returns.egress import coverage as coverages
from edge_ai_assets.returns.egress.ledger import Ledger, verify
from edge_ai_assets.returns.egress.policy import Policy
from edge_ai_assets.returns.inbox import heads, inbox, tables
from edge_ai_assets.returns.outbox import insights, journal
from edge_ai_assets.returns.outbox.journal import PREDICTED, Block
from edge_ai_assets.returns.outbox.outbox import Batch, Feedback, Outbox, OutboxFull
from edge_ai_assets.returns.outbox.store import Store
from edge_ai_assets.returns.package import packing
from edge_ai_assets.returns.package.lineage import Event
from edge_ai_assets.returns.package.lineage import encode as encode_event
from edge_ai_assets.returns.package.parts import EventMark
from edge_ai_assets.returns.road import media
from edge_ai_assets.returns.road import uplink as uplinks
from edge_ai_assets.returns.road.connectivity import State
from edge_ai_assets.returns.road.link import Link, LinkDown
from edge_ai_assets.scoring.writer import DiskFull, Writer
from edge_ai_assets.stack_hub import connecting, disk, provision
from edge_ai_assets.usecase import Returns, UseCase
from edge_ai_assets_tests.blocks import TORN

SITE = "bergen"
START = 1_760_000_000_000_000
DAY = disk.DAY
USECASE = """
name: ship
runs: {column: run}
label: {column: fault, positive: [1]}
features: [{name: Flow}, {name: Pressure, unit: bar}, {name: Secret}]
egress:
  kinds: %s
  minimum_group_size: 2
  fields:
    - {name: Flow, leaves: as_is}
    - {name: Pressure, leaves: rounded, digits: 6}
    - {name: _score, leaves: rounded, digits: 3}
    - {name: _predicted, leaves: as_is}
    - {name: _correct, leaves: as_is}
sites: [{name: bergen}]
"""
ALL, NO_NORMAL = "[anomaly, normal, feedback, aggregate, lineage]", "[anomaly, feedback, aggregate, lineage]"


class PowerCut(BaseException):
    """The process ends here: nothing of it goes on, what the kernel has stays."""


class Frayed(Link):
    """A link that carries `left` slices more, then is cut. Every cut is counted."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.left: float = 0
        self.cuts = 0

    def check(self) -> None:
        if self.left < 1:
            if self.left >= 0:
                self.cuts += 1
            self.left = -1
            raise LinkDown("the link is down")
        self.left -= 1


class Watched(Outbox):
    """An outbox that notes which scores were to stay, and why."""

    gone: defaultdict[str, set[int]]

    def dispose(
        self, disposition: str, reasons: Mapping[str, Iterable[int]], *, table: str = "scores"
    ) -> None:
        stays = disposition if table == "scores" else table
        self.gone[stays].update(itertools.chain.from_iterable(reasons.values()))
        super().dispose(disposition, reasons, table=table)

    def seal(self, package: Any, sequences: Any, ids: Any, withheld: Any, withheld_feedback: Any) -> None:
        self.gone["withheld"].update(itertools.chain.from_iterable(withheld.values()))
        self.gone["feedback"].update(itertools.chain.from_iterable(withheld_feedback.values()))
        super().seal(package, sequences, ids, withheld, withheld_feedback)

    def _delete(self, rows: Sequence[tuple[int, int | None]]) -> None:
        with self._noted(min(rows)[0], max(rows)[0]):
            super()._delete(rows)

    def _delete_lot(self, first: int) -> None:
        (last,) = self._db.execute("SELECT last FROM lots WHERE first = ?", (first,)).fetchone()
        with self._noted(first, last):
            super()._delete_lot(first)

    @contextmanager
    def _noted(self, first: int, last: int) -> Iterator[None]:
        """What of these is deleted meanwhile: what waited has expired, the rest was pruned."""
        before = self._between(first, last)
        yield
        left = {row.sequence for row in self._between(first, last)}
        for row in before:
            if row.sequence not in left:
                waited = row.disposition is None and row.package is None
                state = "expired" if waited else f"pruned {row.disposition or 'uploaded'}"
                self.gone[state].add(row.sequence)


class Ship:
    """A site at sea.

    Args:
        root: of a home with both sides; the site's own folder may be a file system of its own already.
        returns: how much it may hold, and what it does then.
        chance: what happens by chance is drawn from it.
    """

    def __init__(self, root: Path, returns: Returns, chance: random.Random) -> None:
        self.home, self.returns, self.chance = Home(root), returns, chance
        signing.create(self.home.keys, pack.KEY)
        self.site = provision.provision(self.home, SITE)
        self.usecase: UseCase = usecases.loads(USECASE % ALL)
        self.key = signing.load_private(provision.private_key(self.site))
        self.trusted = {SITE: [self.key.public_key()]}
        self.link = Frayed(self.site.root)
        self.way = uplinks.FolderUplink(self.home.uplink, SITE, self.link)
        self.true, self.off = START, 0
        self.events: list[int] = []
        """The site's Dagster log: the time of each event. Its storage ids are three times its number."""
        self.scored: list[tuple[int, int, int]] = []
        """First, rows and time of each batch with a receipt."""
        self.words: list[int] = []
        self.gone: defaultdict[str, set[int]] = defaultdict(set)
        """Sequences of scores that stay, by disposition; and ids of feedback that does."""
        self.met: Counter[str] = Counter()
        """What happened, and how often."""
        self.most = 0
        """Bytes that `held` found at most."""
        self._writer: Writer | None = None

    # The clocks: ours is true, the site's may be years off.

    def now(self) -> int:
        return self.true + self.off

    def azure_now(self) -> int:
        return self.true

    # The scoring service.

    def writer(self) -> Writer:
        if self._writer is None:
            self._writer = Writer(self.site.outbox, quota=disk.outbox_bytes(self.returns))
        return self._writer

    def score(self, rows: int, *, anomalies: float = 0.1, torn: bool = False) -> int | None:
        """One commit of a block of rows; the first sequence, or None when it was refused."""
        first = self.last + 1
        made = (rows, TORN) if torn else block(first, rows, anomalies)
        key = f"request {first} {self.true}"
        batch = Batch(key, "r1", self.now(), [made])
        try:
            [receipt] = self.writer().write([batch])
        except (OutboxFull, DiskFull) as error:
            self.met[type(error).__name__] += 1
            return None
        except sqlite3.OperationalError as error:  # it cannot even be opened: the service is started again
            assert self._writer is None and self.no_room(error), error
            self.met["service that did not start"] += 1
            return None
        assert (receipt.first, receipt.rows, receipt.repeated) == (first, rows, False), "no gap, no reuse"
        again = self.writer().run(lambda outbox: outbox.find(key, b""))
        assert again is not None and (again.first, again.rows) == (first, rows), "an answer that was lost"
        self.scored.append((first, rows, batch.scored_at))
        return first

    @property
    def last(self) -> int:
        """The last sequence with a receipt."""
        return self.scored[-1][0] + self.scored[-1][1] - 1 if self.scored else 0

    def judge(self, sequence: int) -> None:
        """A user's word on a score, if that is kept."""
        item = Feedback(sequence, sequence % 2 == 0, None, "operator", self.now())
        try:
            self.words += self.writer().run(lambda outbox: outbox.add_feedback([item]))
        except DiskFull:
            self.met["DiskFull"] += 1
        except RuntimeError as error:
            assert "no longer kept" in str(error)

    # The site's Dagster.

    def outbox(self) -> Watched:
        opened = Watched(self.site.outbox)
        opened.gone = self.gone
        return opened

    def source(self, mark: EventMark, limit: int) -> tuple[list[bytes], EventMark]:
        lines = [
            event(n, self.events[n - 1])
            for n in range(mark.storage_id // 3 + 1, len(self.events) + 1)[:limit]
        ]
        return lines, EventMark(mark.storage_id + 3 * len(lines), mark.number + len(lines))

    def derive(self) -> int:
        with self.outbox() as outbox:
            return sum(insights.derive(outbox).values())

    def make_room(self) -> disk.Room:
        with self.outbox() as outbox:
            room = disk.make_room(self.site, outbox, self.returns, self.now)
        self.met["pruned rows"] += room.pruned
        self.met["expired rows"] += room.expired
        return room

    def pack(self, limit: int = 50_000) -> int:
        """As `returning.pack_all` does it, which has neither our clock nor our events; packages."""
        self.events.append(self.now())
        policy = Policy(self.usecase, bytes(32))
        sealed: list[str] = []
        with self.outbox() as outbox:
            try:
                while made := packing.pack(
                    outbox,
                    SITE,
                    policy,
                    {},
                    self.key,
                    self.site.spool,
                    at=self.now(),
                    limit=limit,
                    events=None if sealed else self.source,
                    spool_bytes=disk.spool_bytes(self.returns),
                    outbox_bytes=disk.packed_bytes(self.returns),
                ):
                    sealed.append(made.package.name)
            except packing.SpoolFull:
                self.met["SpoolFull"] += 1
        self.met["packages"] += len(sealed)
        return len(sealed)

    def look_and_send(self, slices: float) -> None:
        """What the connectivity sensor and the upload asset do while the link carries so many slices more."""
        self.link.left = slices
        look = connecting.look(self.site, self.way, self.now(), chance=self.chance.random)
        if look.upload_due:
            sent = connecting.send(self.site, self.way, self.now)
            self.met["sent over the link"] += sent.packages

    def export(self, into: Path, **options: Any) -> list[str]:
        into.mkdir(parents=True, exist_ok=True)
        with self.outbox() as outbox:
            ledger = Ledger(self.site.ledger)
            put = media.export(outbox, self.site.spool, ledger, into, now=self.now, **options)
        self.met["exported"] += put.packages
        return put.names

    def heed(self, ack: bytes) -> None:
        """An acknowledgement that was brought here, by a bundle say."""
        done = connecting.apply_ack(self.site, ack, self.now())
        assert done.refused is None, done.refused

    # Azure.

    def receive(self) -> inbox.Received:
        home = self.home
        done = inbox.receive(
            home.uplink, home.tables, self.trusted, home.refused, limit=1_000, now=self.azure_now
        )
        assert not done.refused and not done.failed, (done.refused, done.failed)
        self.met["received"] += done.packages
        return done

    def bring(self, medium: Path) -> None:
        taken = media.import_(medium, self.home.uplink, [SITE])
        assert not taken.rejected, taken.rejected
        self.met["imported"] += taken.packages
        self.met["imported again"] += taken.there

    def ack(self) -> bytes | None:
        return arrivals.acks(self.home).get(SITE)

    def acknowledge(self) -> None:
        """Put it where the link finds it."""
        self.met["acknowledged"] += len(arrivals.acknowledge(self.home))

    # What goes wrong.

    @contextmanager
    def cut_after(self, steps: int) -> Iterator[None]:
        """The power goes after so many steps that make something durable, or change a name or a table."""
        left = [steps]

        def burning(true: Callable[..., Any]) -> Callable[..., Any]:
            @functools.wraps(true)
            def burn(*arguments: Any, **options: Any) -> Any:
                left[0] -= 1
                if left[0] < 0:
                    raise PowerCut
                return true(*arguments, **options)

            return burn

        names = ("fsync", "replace", "link", "rename", "unlink")
        with (
            mock.patch.multiple(os, **{name: burning(getattr(os, name)) for name in names}),
            mock.patch.object(Store, "_begin", burning(Store._begin)),
        ):
            try:
                yield
            except PowerCut:
                self.met["power cuts"] += 1
                self.reopen()

    def reopen(self) -> None:
        """The service starts again."""
        if self._writer is not None:
            self._writer.close()
        self._writer = None

    @contextmanager
    def full_disk(self) -> Iterator[None]:
        """A step that fails because the disk is full, as a run of Dagster would; it is tried again later."""
        try:
            yield
        except sqlite3.OperationalError as error:
            assert self.no_room(error), error
            self.met["steps without room"] += 1
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            self.met["steps without room"] += 1

    def no_room(self, error: sqlite3.OperationalError) -> bool:
        """Whether that is because the disk is full: for SQLite's shared memory it is an error of the disk."""
        code, there = error.sqlite_errorcode & 0xFF, os.statvfs(self.site.root)
        no_shared_memory = code == sqlite3.SQLITE_IOERR and there.f_bavail * there.f_frsize < 32_768
        return code == sqlite3.SQLITE_FULL or no_shared_memory

    # What must hold.

    def held(self) -> int:
        """Bytes on the site's disk: outbox, its journal, packages; without the ledger, which is for ever."""
        parts = [*self.site.root.glob("outbox.db*"), *self.site.spool.glob("*"), *self.site.spool.glob(".*")]
        held = sum(path.stat().st_size for path in parts)
        self.most = max(self.most, held)
        return held

    def check_site(self) -> None:
        with self.outbox() as outbox:
            counts = outbox.counts()
            assert counts.conserved, counts
            assert counts.scored == self.last
            tally = outbox.tally()
        parts = (tally.packed, tally.withheld, tally.quarantined, tally.expired, tally.waiting)
        assert tally.scored == sum(parts) and min(parts) >= 0, tally

    def recount(self) -> None:
        with self.outbox() as outbox:
            assert outbox.counts() == outbox.recount()

    @property
    def stays(self) -> set[int]:
        """Sequences that need not come."""
        return self.gone["withheld"] | self.gone["quarantined"] | self.gone["expired"]

    def merged(self, columns: str = "sequence") -> dict[str, np.ndarray]:
        """The insights on Azure, in the order of sequences."""
        import duckdb

        if (table := tables.existing(self.home.tables, "insights")) is None:
            return {"sequence": np.array([], np.int64)}
        with duckdb.connect() as db:
            db.register("t", table.to_pyarrow_dataset())
            return db.execute(f"SELECT {columns} FROM t ORDER BY sequence").fetchnumpy()

    def check_watermark(self) -> None:
        """Every score up to it came, or is known at the site not to come."""
        head = heads.read(self.home.tables).get(SITE)
        if head is None:
            return
        assert head.complete is not None
        with self.outbox() as outbox:
            last = outbox.last_package()
        assert last is not None and head.number <= last.number
        came = np.zeros(self.last + 1, bool)
        came[self.merged()["sequence"]] = True
        missing = np.flatnonzero(~came[1 : head.complete + 1]) + 1
        assert self.stays.issuperset(missing.tolist()), "the watermark promises what did not come"

    def check_ledger(self) -> None:
        """The chain holds, and covers all that counts as sent and every file that arrived."""
        with self.outbox() as outbox:
            assert coverages.check(self.site.ledger, outbox).uncovered == 0
        rows = tables.rows(self.home.tables, "packages", ["number", "name", "digest"])
        with coverages.Coverage(self.site.ledger) as coverage:
            for row in rows:
                left = coverage.of(row["name"], row["digest"])
                size = (self.home.uplink / SITE / row["name"]).stat().st_size
                assert left is not None and left.covered == size, row

    def come_home(self) -> None:
        """The link stays, and everything is drained: nobody does anything else."""
        for _ in range(100):
            self.true += DAY
            self.make_room()
            self.derive()
            self.pack()
            self.look_and_send(float("inf"))
            while self.receive().packages:
                pass
            self.acknowledge()
            self.check_site()
            with self.outbox() as outbox:
                if not outbox.counts().pending:
                    break
        assert connecting.known(self.site).state is State.CONNECTED
        self.check_home()

    def check_home(self) -> None:
        """All is home: nothing lost, nothing twice, nothing in another order."""
        with self.outbox() as outbox:
            counts, last = outbox.counts(), outbox.last_package()
            assert counts == outbox.recount() and counts.pending == 0 and counts.conserved, counts
            assert outbox.unsent_total() == 0
        assert counts.scored == self.last == sum(rows for _, rows, _ in self.scored)
        found = self.merged("sequence, package, kind, epoch_us(scored_at) AS at, predicted, fields")
        sequences = found["sequence"]
        assert len(sequences) == len(np.unique(sequences)) == counts.uploaded
        assert len(sequences) + counts.withheld + counts.quarantined + counts.expired == counts.scored
        lost = set(range(1, counts.scored + 1)) - set(sequences.tolist())
        assert lost <= self.stays
        self._check_values(found)
        for kind in ("anomaly", "normal"):
            packages = found["package"][found["kind"] == kind]
            assert (np.diff(packages) >= 0).all(), f"{kind}: the oldest first, across all packages"
        assert last is not None
        numbers = sorted(row["number"] for row in tables.rows(self.home.tables, "packages", ["number"]))
        assert numbers == list(range(1, last.number + 1))
        assert inbox.duplicates(self.home.tables) == 0
        assert not self.home.refused.exists()
        self._check_told(counts.scored)
        self.check_watermark()
        self.check_ledger()
        assert verify(self.site.ledger) > 0

    def _check_values(self, found: Mapping[str, np.ndarray]) -> None:
        """Each row has what its score had."""
        sequences = found["sequence"]
        assert np.array_equal(found["predicted"].astype(bool), found["kind"] == "anomaly")
        flows = [float(text.split('"Flow":')[1].split(",")[0]) for text in found["fields"]]
        assert np.array_equal(flows, sequences)
        starts = np.array([first for first, _, _ in self.scored])
        times = np.array([at for _, _, at in self.scored])
        assert np.array_equal(times[np.searchsorted(starts, sequences, "right") - 1], found["at"])

    def _check_told(self, scored: int) -> None:
        """Feedback, lineage, windows and what the packages say of the counts."""
        words = tables.rows(self.home.tables, "feedback", ["id", "sequence", "correct"])
        assert all(row["correct"] == (row["sequence"] % 2 == 0) for row in words)
        came = [row["id"] for row in words]
        assert len(came) == len(set(came)) and set(came) <= set(self.words)
        assert set(self.words) - set(came) <= self.gone["feedback"]
        told = tables.rows(self.home.tables, "lineage", ["n", "at", "kind"])
        told.sort(key=lambda row: row["n"])
        assert [row["n"] for row in told] == list(range(1, len(told) + 1))
        assert [round(row["at"].timestamp() * 1e6) for row in told] == self.events[: len(told)]
        assert len(told) >= len(self.events) - 1
        parts = ("packed", "withheld", "quarantined", "expired", "waiting")
        rows = tables.rows(self.home.tables, "packages", ["number", "scored", *parts])
        rows.sort(key=lambda row: row["number"])
        assert all(row["scored"] == sum(row[part] for part in parts) for row in rows)
        assert all(np.diff([row["scored"] for row in rows]) >= 0)
        windows = tables.rows(self.home.tables, "aggregates", ["rows"])
        assert sum(row["rows"] for row in windows) <= scored


def block(first: int, rows: int, anomalies: float) -> tuple[int, bytes]:
    """Scores that follow each other, `Flow` is their sequence."""
    numbers = np.arange(first, first + rows)
    values = np.stack([numbers, 2 + numbers * 0.618_033_988_75 % 1, 40 + numbers % 31 / 7], 1).astype("<f8")
    found = (numbers * 2_654_435_761 % 1_000) / 1_000
    yes = found < anomalies
    scores = np.where(yes, 0.9, found * 0.4).astype("<f8")
    context: dict[str, list[str | int | None]] = {"_run": [f"run {first}"] * rows}
    made = Block(
        ("Flow", "Pressure", "Secret"),
        values.tobytes(),
        {},
        scores.tobytes(),
        (yes * PREDICTED).astype(np.uint8).tobytes(),
        context,
    )
    return rows, journal.encode(made)


def event(n: int, at: int) -> bytes:
    run = f"00000000-0000-4000-8000-{n:012}"
    told = {"packages": n}
    return encode_event(Event(n, "materialization", ("site", "egress"), SITE, at, run, "job", told))


def lose(medium: Path) -> None:
    shutil.rmtree(medium, ignore_errors=True)
