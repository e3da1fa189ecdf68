"""The four formats that outlive a version: their pages say what the code does, and files of earlier formats
stay readable.

`golden/` was written by `write`, each file once. A change that makes a test here fail needs a new format
number, a page that says so, and golden files beside the old ones; the old ones stay. To write the files of a
new format: python -m edge_ai_assets_tests.test_formats FOLDER
"""

import hashlib
import json
import re
import sqlite3
import struct
import sys
import tempfile
from collections.abc import Sequence
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from edge_ai_assets.delivery import archive, bundle, bundlefile, image, release
from edge_ai_assets.delivery.errors import MalformedError
from edge_ai_assets.delivery.layout import Layout
from edge_ai_assets.delivery.manifest import encode
from edge_ai_assets.delivery.signing import envelope
from edge_ai_assets.returns.egress.ledger import Entry
from edge_ai_assets.returns.egress.policy import Histogram
from edge_ai_assets.returns.outbox import insights, journal, layout, schema
from edge_ai_assets.returns.outbox.journal import BLOCK_SCHEMA, PREDICTED, Block
from edge_ai_assets.returns.outbox.outbox import Outbox, OutboxError
from edge_ai_assets.returns.outbox.schema import (
    RECORD_SCHEMA,
    Batch,
    Context,
    Counts,
    Feedback,
    PackageRow,
    Pruned,
    Record,
    Tally,
    Tombstone,
)
from edge_ai_assets.returns.outbox.sheets import Sheet
from edge_ai_assets.returns.package import lineage, packages, parts, sketches
from edge_ai_assets.returns.package.lineage import Check, Event
from edge_ai_assets.returns.package.packages import PackageError
from edge_ai_assets.returns.package.parts import Aggregate, Insight, Sketch, Word
from edge_ai_assets.returns.road import acks
from edge_ai_assets.scoring import contract
from edge_ai_assets.scoring.contract import Contract, ContractError, Input, Reference

GOLDEN = Path(__file__).with_name("golden")
PAGES = Path(__file__).parents[1] / "docs/formats"
KEY = Ed25519PrivateKey.from_private_bytes(b"golden files only, no secret! 32")
AT = 1_760_000_000_000_000
DIGEST = "sha256:" + "5e" * 32
RUN = "0c5e0c5e-0c5e-4c5e-8c5e-0c5e0c5e0c5e"
PACKAGE, BUNDLE, CONTRACT, OUTBOX = (
    "bergen-00000003.zip",
    "pump-station-1.bundle",
    "contract.json",
    "outbox-5.sql",
)
OUTBOX_1, OUTBOX_2, OUTBOX_3, OUTBOX_4 = (f"outbox-{number}.sql" for number in range(1, 5))
PACKAGE_1, PACKAGE_2 = "bergen-00000001.zip", "bergen-00000002.zip"
BUNDLE_2 = "pump-station-1-acks.bundle"
"""Of format 2: the same release, with acknowledgements. One without them is of format 1."""

# What stands in the golden files.

FLOW = "Flow [m³/h]"
GOLDEN_CONTRACT = Contract(
    "pump-station",
    (
        Input(FLOW, "number", "m³/h", FLOW, 0.0, 400.0, 88.1, 203.4),
        Input("Pump type", "category", "", "Pump type", categories=("centrifugal", "screw")),
        Input(f"{FLOW} [mean 12]", "number", "m³/h", FLOW),
    ),
    0.5,
    "fault",
    (Reference(FLOW, (120.0, 150.0), (10, 20, 10), 0.1),),
)
GOLDEN_RELEASE = {
    "usecase": "pump-station",
    "run_id": "run-1",
    "data_version": "v1",
    "metrics": {"f1": 0.875, "false_alarm_rate": 0.03125},
    "created": datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
}
GOLDEN_INSIGHTS = [
    Insight(3, AT, DIGEST, "anomaly", 0.9375, True, {FLOW: 151.87, "Pump type": "screw", "_time": None}),
    Insight(5, AT + 1, DIGEST, "anomaly", None, None, {}),
]
GOLDEN_WORDS = [Word(1, 3, AT + 2, DIGEST, False, "sensor fault", None, {FLOW: 151.87})]
GOLDEN_HISTOGRAMS = [Histogram(DIGEST, FLOW, 30, (10, 20, 0))]
HOUR = AT - AT % 3_600_000_000
GOLDEN_AGGREGATES = [
    Aggregate(DIGEST, HOUR, 30, 2, None, 7.5),
    Aggregate(DIGEST, HOUR, 20, 1, None, 2.5, "pump 2"),
]
GOLDEN_SKETCHES = [Sketch(DIGEST, FLOW, 30, sketches.K, sketches.make(np.arange(30.0)))]
GOLDEN_EVENTS = [
    Event(17, "materialization", ("site", "scores"), "bergen", AT, RUN, "scoring", {"scored_rows": 9}),
    Event(18, "check", ("site", "upload"), "bergen", AT + 1, RUN, check=Check("conservation", True, "ERROR")),
]
GOLDEN_SAID = {
    "complete": 9,
    "counts": Tally(12, 2, 7, 1, 1, 1),
    "expired": {"the outbox has reached its quota": 1},
    "inventory": (DIGEST,),
    "running": DIGEST,
}
GOLDEN_RECORD = Record({FLOW: 151.87, "Pump type": None}, Context("2026-03-01T00:04:00", "7", 1))
GOLDEN_SCORES = [0.9375, 0.25, 0.75]
GOLDEN_SEALED = PackageRow(
    1, PACKAGE_1, "0a" * 32, "", 1, 1, 99, AT + 2, complete=2, event_id=19, event_number=7
)
FINGERPRINT = b"\x5e" * 32
GOLDEN_ACKS = {
    "narvik": acks.make("narvik", 7, "0b" * 32, AT + 9, KEY),
    "bergen": acks.make("bergen", 1, "0a" * 32, AT + 8, KEY),
}


def golden_block(*scores: float) -> tuple[int, bytes]:
    """Rows of GOLDEN_RECORD."""
    rows = len(scores)
    context = {"_time": ["2026-03-01T00:04:00"] * rows, "_run": ["7"] * rows, "_row": [1] * rows}
    return rows, journal.encode(
        Block(
            (FLOW, "Pump type"),
            struct.pack("<2d", 151.87, -1.0) * rows,
            {"Pump type": [None] * rows},
            struct.pack(f"<{rows}d", *scores),
            bytes(PREDICTED * (score >= 0.5) for score in scores),
            context,
        )
    )


def write_package(aggregates: Sequence[Aggregate] = GOLDEN_AGGREGATES) -> bytes:
    """It follows the one of format 2."""
    return packages.build(
        site="bergen",
        number=3,
        previous=hashlib.sha256((GOLDEN / PACKAGE_2).read_bytes()).hexdigest(),
        policy="0c" * 32,
        created_at=AT + 3,
        first=1,
        last=9,
        insights=GOLDEN_INSIGHTS,
        feedback=GOLDEN_WORDS,
        histograms=GOLDEN_HISTOGRAMS,
        aggregates=aggregates,
        sketches=GOLDEN_SKETCHES,
        lineage=[lineage.encode(event) for event in GOLDEN_EVENTS],
        lineage_last=18,
        **GOLDEN_SAID,
        key=KEY,
    )


def write_bundle(scratch: Path, acknowledged: dict[str, bytes] | None = None) -> bytes:
    model = scratch / "model"
    model.mkdir()
    for name in image.FILES:
        (model / name).write_text(f"{name} of the golden bundle\n")
    contract.write(GOLDEN_CONTRACT, model / "contract.json")
    layout = Layout(scratch / "registry")
    made = image.build(model, layout, annotations={"org.opencontainers.image.title": "pump-station"})
    release.publish(layout, image=made, key=KEY, **GOLDEN_RELEASE)
    return bundle.build(layout, 1, scratch / "media", [KEY.public_key()], acks=acknowledged).read_bytes()


def write_outbox(path: Path) -> None:
    """One score in each state, another in its block, one feedback, one package; the expired one is gone."""
    with Outbox(path) as outbox:
        torn = (1, b"no block")
        outbox.append([Batch("key 1", DIGEST, AT, [golden_block(*GOLDEN_SCORES), torn], FINGERPRINT)])
        assert insights.derive(outbox) == {"anomaly": 2, "normal": 1, "quarantined": 1}
        outbox.dispose("withheld", {"kind normal is not listed": [2]})
        outbox.add_feedback([Feedback(1, False, "sensor fault", "operator", AT + 1)])
        outbox.seal(GOLDEN_SEALED, [1], [1], {}, {})
        outbox.uploaded(1, AT + 3)
        outbox.exported(1, AT + 4)
        outbox.acknowledge(1, GOLDEN_SEALED.digest, AT + 5)
        outbox.append([Batch("key 2", DIGEST, AT, [golden_block(0.25)], FINGERPRINT)])
        insights.derive(outbox)
        outbox._expire_some("normal", AT + 6, "quota")  # `expire` would go on until a page is free
        outbox.append([Batch(None, DIGEST, AT + 4, [golden_block(0.5)])])


def dumped(path: Path) -> str:
    """An outbox as SQL: readable in a review, unlike its file."""
    with closing(sqlite3.connect(path)) as database:
        version = database.execute("PRAGMA user_version").fetchone()[0]
        return "\n".join([*database.iterdump(), f"PRAGMA user_version = {version};", ""])


def write(folder: Path) -> None:
    """Write golden files of today's formats."""
    folder.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        (folder / BUNDLE).write_bytes(write_bundle(Path(scratch)))
    with tempfile.TemporaryDirectory() as scratch:
        (folder / BUNDLE_2).write_bytes(write_bundle(Path(scratch), GOLDEN_ACKS))
        write_outbox(Path(scratch) / "outbox.db")
        (folder / OUTBOX).write_text(dumped(Path(scratch) / "outbox.db"), "utf-8")
    (folder / PACKAGE).write_bytes(write_package())
    contract.write(GOLDEN_CONTRACT, folder / CONTRACT)


# Golden files.


def restore(name: str, path: Path) -> Path:
    """A golden outbox as the file it was."""
    with closing(sqlite3.connect(path)) as database:
        database.execute("PRAGMA journal_mode = WAL")
        database.executescript((GOLDEN / name).read_text("utf-8"))
    return path


@pytest.fixture(params=[OUTBOX_1, OUTBOX_2, OUTBOX_3, OUTBOX_4, OUTBOX])
def restored(request, tmp_path):
    """The outbox of each format."""
    return restore(request.param, tmp_path / "golden.db")


def test_the_golden_files_are_small():
    assert {path.name for path in GOLDEN.iterdir() if path.is_file()} == {
        PACKAGE,
        PACKAGE_1,
        PACKAGE_2,
        BUNDLE,
        BUNDLE_2,
        CONTRACT,
        OUTBOX,
        OUTBOX_1,
        OUTBOX_2,
        OUTBOX_3,
        OUTBOX_4,
        "lineage-1.jsonl",
        "pump-station-1-trust.bundle",
        "root-1.json",
        "root-container.json",
        "translator-1-container.bundle",
    }
    assert all(path.stat().st_size < 40_000 for path in GOLDEN.iterdir() if path.is_file())


def test_the_golden_contract_is_read():
    assert contract.read(GOLDEN / CONTRACT) == GOLDEN_CONTRACT


def test_the_golden_contract_is_written_byte_for_byte(tmp_path):
    contract.write(GOLDEN_CONTRACT, tmp_path / CONTRACT)
    assert (tmp_path / CONTRACT).read_bytes() == (GOLDEN / CONTRACT).read_bytes()


@pytest.mark.parametrize(("name", "number"), [(PACKAGE_1, 1), (PACKAGE_2, 2), (PACKAGE, 3)])
def test_the_golden_package_is_read(name, number):
    package = packages.read(GOLDEN / name, [KEY.public_key()])
    said = package.manifest
    assert (said.format, said.site, said.number, said.policy) == (number, "bergen", number, "0c" * 32)
    assert (said.created_at, said.first, said.last, said.releases) == (AT + 3, 1, 9, (DIGEST,))
    (first, second), (word,) = package.insights.to_pylist(), package.feedback.to_pylist()
    moment = datetime.fromtimestamp(AT / 1e6, UTC)
    assert (first["sequence"], first["scored_at"], first["kind"]) == (3, moment, "anomaly")
    assert [first["score"], second["score"]] == [0.9375, None]
    missing = {"_time": None} if number == 1 else {}
    assert json.loads(first["fields"]) == {FLOW: 151.87, "Pump type": "screw", **missing}
    assert second["fields"] == "{}"
    assert (word["sequence"], word["correct"], word["note"], word["role"]) == (3, False, "sensor fault", None)
    assert package.histograms.to_pylist() == [
        {"release": DIGEST, "feature": FLOW, "rows": 30, "counts": [10, 20, 0]}
    ]


def test_the_golden_package_of_format_1_says_nothing_of_what_came_later():
    package = packages.read(GOLDEN / PACKAGE_1, [KEY.public_key()])
    said = package.manifest
    assert {name: member.rows for name, member in said.members.items()} == dict(
        zip(parts.MEMBERS[:3], (2, 1, 1), strict=True)
    )
    assert said.previous == ""
    assert (said.complete, said.counts, said.expired, said.lineage) == (-1, None, {}, (0, 0))
    assert (said.inventory, said.running) == ((), "")
    assert [len(part) for part in (package.aggregates, package.sketches, package.lineage)] == [0, 0, 0]


@pytest.mark.parametrize(
    ("name", "before", "aggregates"),
    [(PACKAGE_2, PACKAGE_1, GOLDEN_AGGREGATES[:1]), (PACKAGE, PACKAGE_2, GOLDEN_AGGREGATES)],
)
def test_the_golden_package_since_format_2_says_all(name, before, aggregates):
    package = packages.read(GOLDEN / name, [KEY.public_key()])
    said = package.manifest
    assert {name: member.rows for name, member in said.members.items()} == dict(
        zip(parts.MEMBERS, (2, 1, 1, len(aggregates), 1, 2), strict=True)
    )
    assert said.previous == packages.read(GOLDEN / before, [KEY.public_key()]).digest
    assert {name: getattr(said, name) for name in GOLDEN_SAID} == GOLDEN_SAID
    assert said.lineage == (17, 18)
    assert [lineage.decode(line) for line in package.lineage] == GOLDEN_EVENTS
    window, (sketch,) = datetime(2025, 10, 9, 8, tzinfo=UTC), package.sketches.to_pylist()
    told = [{**msgspec.structs.asdict(aggregate), "window": window} for aggregate in aggregates]
    assert package.aggregates.to_pylist() == told
    assert (sketch["release"], sketch["feature"]) == (DIGEST, FLOW)
    items = sketches.read(sketch["sketch"], sketch["rows"], sketch["k"])
    assert items.values.tolist() == [*range(30)]


def test_the_golden_package_is_written_again():
    """Byte for byte by the pyarrow that wrote it; another one may encode Parquet differently."""
    golden, today = (GOLDEN / PACKAGE).read_bytes(), write_package()
    if golden == today:
        return
    old, new = (packages.read(data, [KEY.public_key()]) for data in (golden, today))
    writers = [written_by(data) for data in (golden, today)]
    assert writers[0] != writers[1], "the same pyarrow wrote other bytes: the format has changed"
    for part in (*parts.TABLES, parts.LINEAGE):
        name = part.partition(".")[0]
        assert getattr(old, name) == getattr(new, name)
    assert msgspec.structs.replace(old.manifest, members={}) == msgspec.structs.replace(
        new.manifest, members={}
    )


def test_a_package_without_plant_assets_has_the_members_of_format_2():
    """Byte for byte, under the same pyarrow."""
    golden = (GOLDEN / PACKAGE_2).read_bytes()
    today = write_package(aggregates=GOLDEN_AGGREGATES[:1])
    if written_by(golden) == written_by(today):
        (_, old), (_, new) = (packages._open(data, [KEY.public_key()]) for data in (golden, today))
        assert old == new


def written_by(package: bytes) -> str:
    """The library that wrote its members."""
    _, members = packages._open(package, [KEY.public_key()])
    return pq.ParquetFile(pa.BufferReader(members[parts.INSIGHTS])).metadata.created_by


@pytest.mark.parametrize(("name", "acknowledged"), [(BUNDLE, {}), (BUNDLE_2, GOLDEN_ACKS)])
def test_the_golden_bundle_is_read(tmp_path, name, acknowledged):
    layout = Layout(tmp_path / "site")
    found = bundle.import_bundle(GOLDEN / name, layout, [KEY.public_key()])
    assert bundle.acks(GOLDEN / name) == acknowledged
    for site, data in acknowledged.items():
        assert acks.read(data, site, [KEY.public_key()]).site == site
    assert {name: getattr(found, name) for name in GOLDEN_RELEASE} == GOLDEN_RELEASE
    assert found.version == 1
    image.unpack(layout, found.image, tmp_path / "unpacked", max_bytes=1 << 20)
    assert {path.name for path in (tmp_path / "unpacked/model").iterdir()} == set(image.FILES)
    assert contract.read(tmp_path / "unpacked/model/contract.json") == GOLDEN_CONTRACT


@pytest.mark.parametrize(("name", "acknowledged"), [(BUNDLE, None), (BUNDLE_2, GOLDEN_ACKS)])
def test_the_golden_bundle_is_written_byte_for_byte(tmp_path, name, acknowledged):
    assert write_bundle(tmp_path, acknowledged) == (GOLDEN / name).read_bytes()


def test_the_golden_outbox_is_read(restored):
    with Outbox(restored, create=False) as outbox:
        counts, rows = outbox.counts(), outbox.rows(1, 4)
        assert counts == outbox.recount() and counts.conserved
        assert (counts.uploaded, counts.withheld, counts.quarantined) == (1, 1, 1)
        assert [row.disposition for row in rows] == ["uploaded", "withheld", None, "quarantined"]
        assert [row.kind for row in rows] == ["anomaly", "normal", "anomaly", None]
        assert [row.score for row in rows[:3]] == GOLDEN_SCORES
        assert [row.predicted for row in rows[:3]] == [1, 0, 1]
        assert {row.scored_at for row in rows} == {AT} and {row.release for row in rows} == {DIGEST}
        assert [schema.decode(row) for row in rows[:3]] == [GOLDEN_RECORD] * 3
        package = msgspec.structs.astuple(outbox.last_package())
        assert package[:9] == (1, PACKAGE_1, "0a" * 32, "", 1, 1, 99, AT + 2, AT + 3)
        assert outbox.tally().packed == 1


def test_the_golden_outbox_tells_of_what_went_and_what_is_home(tmp_path):
    with Outbox(restore(OUTBOX, tmp_path / "golden.db"), create=False) as outbox:
        later = {"uploaded_at": AT + 3, "exported_at": AT + 4, "acknowledged_at": AT + 5}
        assert outbox.last_package() == msgspec.structs.replace(GOLDEN_SEALED, **later)
        assert outbox.tombstones() == [Tombstone(2, "expired", "normal", "quota", 5, 5, 1, AT + 6)]
        assert outbox.prune(AT + 9) == Pruned(2, 1, [PACKAGE_1])
        assert outbox.counts() == outbox.recount() == Counts(6, 1, 1, 1, 1, 2)
        assert (outbox.find("key 1", FINGERPRINT).first, outbox.find("key 2", FINGERPRINT)) == (1, None)


def test_the_golden_block_is_read(tmp_path):
    with Outbox(restore(OUTBOX, tmp_path / "golden.db"), create=False) as outbox:
        for limit in (0, 1):
            assert outbox.unfold(limit).total() == limit
            (row,) = outbox.rows(6, 6)
            assert (row.score, row.predicted, row.scored_at, row.kind) == (0.5, 1, AT + 4, None)
            assert schema.decode(row) == GOLDEN_RECORD
            assert outbox.counts() == outbox.recount() == Counts(6, 1, 1, 1, 1, 2)


def test_scoring_goes_on_in_the_golden_outbox(restored):
    batch = Batch(None, DIGEST, AT, [golden_block(0.5)], FINGERPRINT)
    with Outbox(restored, create=False) as outbox:
        scored, waits = outbox.counts().scored, outbox.counts().pending
        (repeated, fresh) = outbox.append([msgspec.structs.replace(batch, key="key 1"), batch])
        assert (repeated.first, repeated.rows, repeated.repeated, repeated.same) == (1, 4, True, True)
        assert (fresh.first, fresh.repeated) == (scored + 1, False)
        assert insights.derive(outbox)["anomaly"] == waits
        assert outbox.counts().conserved and outbox.counts() == outbox.recount()


def test_an_outbox_of_format_1_kept_no_fingerprints(tmp_path):
    """Whatever comes with the key is taken for the same request."""
    with Outbox(restore(OUTBOX_1, tmp_path / "golden.db"), create=False) as outbox:
        assert outbox.find("key 1", b"any").same
        (batch,) = outbox.append([Batch("key 2", DIGEST, AT, [golden_block(0.5)], b"one")])
        assert (batch.first, outbox.find("key 2", b"two").same) == (5, False)


@pytest.mark.parametrize(("name", "number"), [(OUTBOX_1, 1), (OUTBOX_2, 2), (OUTBOX_3, 3), (OUTBOX_4, 4)])
def test_an_outbox_of_an_earlier_format_is_upgraded_where_it_is(tmp_path, name, number):
    path = restore(name, tmp_path / "golden.db")
    before = stands_in(path)
    assert before["version"] == (number,)
    Outbox(path, create=False).close()
    after = stands_in(path)
    assert after["version"] == (schema.FORMAT,)
    assert (after["feedback"], after["feedback rows"]) == (before["feedback"], before["feedback rows"])
    assert after["scores rows"] == [(*row, *[None] * (number < 4)) for row in before["scores rows"]]
    later = (0, 0, 0, None, None) if number < 3 else ()
    assert after["packages rows"] == [(*row, *later) for row in before["packages rows"]]
    assert after["tally rows"] == sorted({*before["tally rows"], ("packed", 1)})
    with closing(sqlite3.connect(path)) as database:
        found = {table: columns_of(database, table) for table in outbox_tables()}
    assert found == outbox_tables()
    assert after.keys() == stands_in(restore(OUTBOX, tmp_path / "today.db")).keys()
    Outbox(path, create=False).close()
    assert stands_in(path) == after


def test_the_golden_outbox_is_written_again(tmp_path):
    write_outbox(tmp_path / "today.db")
    assert stands_in(tmp_path / "today.db") == stands_in(restore(OUTBOX, tmp_path / "golden.db"))


def stands_in(path: Path) -> dict[str, object]:
    with closing(sqlite3.connect(path)) as database:
        made = database.execute("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL").fetchall()
        found = {name: " ".join(sql.split()) for name, sql in made}
        tables = [name for name, sql in found.items() if sql.startswith("CREATE TABLE")]
        rows = {
            f"{name} rows": sorted(database.execute(f'SELECT * FROM "{name}"'), key=repr) for name in tables
        }
        version = database.execute("PRAGMA user_version").fetchone()
    return {**found, **rows, "version": version}


# Pages.


def page(name: str) -> str:
    return (PAGES / f"{name}.md").read_text("utf-8")


def sections(name: str) -> dict[str, str]:
    """Parts of a page by heading; what stands before the first is ''."""
    head, *rest = re.split(r"^## ", page(name), flags=re.MULTILINE)
    return {"": head} | dict(part.split("\n", 1) for part in rest)


def described(section: str) -> list[str]:
    """Names in the first column of a section's table."""
    rows = [line.split("|")[1] for line in section.splitlines() if line.startswith("| `")]
    return [name for cell in rows for name in re.findall(r"`([^`]+)`", cell)]


def fields(struct: type[msgspec.Struct]) -> list[str]:
    return [field.encode_name for field in msgspec.structs.fields(struct)]


def outbox_tables() -> dict[str, list[str]]:
    with closing(sqlite3.connect(":memory:")) as database:
        database.executescript(layout.TABLES)
        made = database.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
        return {name: columns_of(database, name) for (name,) in made if name != "sqlite_sequence"}


def columns_of(database: sqlite3.Connection, table: str) -> list[str]:
    return [row[1] for row in database.execute(f"PRAGMA table_info({table})")]


TABLES = [
    *(("outbox", f"Table `{name}`", columns) for name, columns in outbox_tables().items()),
    ("outbox", "A block", fields(Block)),
    ("outbox", "A sheet", fields(Sheet)[len(fields(Block)) :]),
    ("return-package", "`manifest.dsse`", fields(parts.Manifest)),
    *(("return-package", f"`{name}`", list(columns.names)) for name, columns in parts.schemas().items()),
    ("release-bundle", "`bundle.json`", fields(bundlefile.Contents)),
    ("release-bundle", "The signed statement", fields(release.Release)),
    ("egress-ledger", "A line", fields(Entry)),
    ("contract", "", fields(Contract)),
    ("contract", "Of each of `inputs`", fields(Input)),
    ("contract", "Of each of `references`", fields(Reference)),
]


@pytest.mark.parametrize(("name", "heading", "names"), TABLES, ids=lambda value: str(value)[:30])
def test_a_table_describes_every_field_and_no_other(name, heading, names):
    found = described(sections(name)[heading])
    assert sorted(found) == sorted(names)
    assert len(set(found)) == len(found)


MENTIONED = [
    ("return-package", "`manifest.dsse`", fields(parts.Member)),
    ("return-package", "", [packages.MANIFEST, *parts.MEMBERS]),
    ("return-package", "`manifest.dsse`", [packages.PAYLOAD_TYPE]),
    ("release-bundle", "`bundle.json`", fields(bundlefile.Blob)),
    ("release-bundle", "`bundle.json`", fields(bundlefile.Ack)),
    ("release-bundle", "The signed statement", [release.PAYLOAD, release.ARTIFACT]),
    ("release-bundle", "The image", [f"model/{name}" for name in image.FILES]),
    ("outbox", "Example of a record", [*fields(Record), *fields(Context)]),
]


@pytest.mark.parametrize(("name", "heading", "names"), MENTIONED, ids=lambda value: str(value)[:30])
def test_a_section_names_every_part(name, heading, names):
    assert [each for each in names if f"`{each}`" not in sections(name)[heading]] == []


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("outbox", f"Format {schema.FORMAT}, block schema {BLOCK_SCHEMA}, record schema {RECORD_SCHEMA}."),
        ("return-package", f"Format {parts.FORMAT}."),
        ("release-bundle", f"Bundle format {bundlefile.FORMAT}, release format {release.FORMAT}."),
        ("contract", f"Format {contract.FORMAT}."),
    ],
)
def test_a_page_begins_with_its_format(name, sentence):
    assert page(name).splitlines()[2].startswith(sentence)


def test_the_examples_are_of_the_format():
    record, example = (
        re.search(r"```json\n(.*?)```", page(name), re.DOTALL)[1] for name in ("outbox", "contract")
    )
    assert msgspec.json.decode(record, type=Record).context.row == 1
    assert msgspec.json.decode(example, type=Contract).references[0].name == FLOW


# What a reader of another version does: the pages quote what these raise.


def newer_outbox(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "outbox.db")) as database:
        database.execute(f"PRAGMA user_version = {schema.FORMAT + 1}")
    Outbox(tmp_path / "outbox.db")


def newer_package(tmp_path: Path) -> None:
    payload, members = packages._open((GOLDEN / PACKAGE).read_bytes(), [KEY.public_key()])
    said = msgspec.to_builtins(payload) | {"format": parts.FORMAT + 1, "new": 1}
    signed = envelope(msgspec.json.encode(said), packages.PAYLOAD_TYPE, KEY)
    packages.read(packages._zip({packages.MANIFEST: signed, **members}), [KEY.public_key()])


def newer_bundle(tmp_path: Path) -> None:
    with (GOLDEN / BUNDLE).open("rb") as file:
        found = [(member.name, b"".join(member.chunks)) for member in archive.members(file, "golden")]
    found[0] = (found[0][0], encode(json.loads(found[0][1]) | {"format": bundlefile.FORMAT + 1, "new": 1}))
    path = tmp_path / BUNDLE
    path.write_bytes(b"".join(archive.pack(archive.Member(name, len(data), [data]) for name, data in found)))
    bundle.verify(path, [KEY.public_key()])


def newer_release(tmp_path: Path) -> None:
    release._decoded(encode({"format": release.FORMAT + 1, "new": 1}))


def newer_contract(tmp_path: Path) -> None:
    found = json.loads((GOLDEN / CONTRACT).read_bytes()) | {"format": contract.FORMAT + 1, "new": 1}
    (tmp_path / CONTRACT).write_text(json.dumps(found))
    contract.read(tmp_path / CONTRACT)


@pytest.mark.parametrize(
    ("meet", "refusal", "name"),
    [
        (newer_outbox, OutboxError, "outbox"),
        (newer_package, PackageError, "return-package"),
        (newer_bundle, MalformedError, "release-bundle"),
        (newer_release, MalformedError, "release-bundle"),
        (newer_contract, ContractError, "contract"),
    ],
)
def test_a_newer_format_is_refused_as_its_page_says(tmp_path, meet, refusal, name):
    with pytest.raises(refusal) as refused:
        meet(tmp_path)
    quoted = re.findall(r"`(\w+ format \d,[^`]+)`", page(name))
    assert any(sentence in str(refused.value) for sentence in quoted)


def test_a_newer_record_is_quarantined(restored):
    with closing(sqlite3.connect(restored, isolation_level=None)) as database:
        database.execute("UPDATE scores SET kind = NULL, schema = 2 WHERE sequence = 3")
    with Outbox(restored) as outbox:
        assert insights.derive(outbox)["quarantined"] == 1
        (row,) = outbox.rows(3, 3)
        assert (row.disposition, row.reason) == (
            "quarantined",
            "record schema 2 is not known, this version reads 1",
        )


if __name__ == "__main__":
    write(Path(sys.argv[1]))
