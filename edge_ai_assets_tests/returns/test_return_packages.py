from __future__ import annotations

import io
import struct
import zipfile
from contextlib import suppress
from pathlib import Path

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_ai_assets.delivery.signing import envelope
from edge_ai_assets.returns.egress.policy import Histogram
from edge_ai_assets.returns.outbox.schema import Tally
from edge_ai_assets.returns.package import members, packages, parts, sketches
from edge_ai_assets.returns.package.members import MemberError
from edge_ai_assets.returns.package.packages import PackageError, build, peek, read
from edge_ai_assets.returns.package.parts import Aggregate, Insight, Sketch, Word

FORMAT_1 = Path(__file__).parents[1] / "golden/bergen-00000001.zip"
GOLDEN_KEY = Ed25519PrivateKey.from_private_bytes(b"golden files only, no secret! 32")
AT = 1_760_000_000_000_000
STRANGER = Ed25519PrivateKey.from_private_bytes(b"x" * 32)


def content(key, **other):
    insights = [
        Insight(3, 1_760_000_000_000_000, "r1", "anomaly", 0.9, True, {"Flow": 1.5, "Type": None}),
        Insight(5, 1_760_000_000_000_001, "r1", "anomaly", None, None, {}),
    ]
    words = [Word(1, 3, 1_760_000_000_000_002, "r1", False, "confirmed", None, {"Flow": 1.5})]
    return {
        "site": "bergen",
        "number": 1,
        "previous": "",
        "policy": "p" * 64,
        "created_at": 12,
        "first": 1,
        "last": 9,
        "insights": insights,
        "feedback": words,
        "histograms": [Histogram("r1", "Flow", 30, (10, 20))],
        "aggregates": [Aggregate("r2", AT, 30, 2, None, 1.5)],
        "sketches": [Sketch("r1", "Flow", 1, 200, struct.pack("<8Bd", 2, 2, 15, 4, 200, 0, 8, 0, 1.5))],
        "lineage": [b'{"n":4}', b'{"n":5}'],
        "lineage_last": 5,
        "complete": 9,
        "counts": Tally(12, 2, 6, 0, 1, 3),
        "expired": {"quota": 1},
        "inventory": ["sha256:b", "sha256:a"],
        "running": "r1",
        "key": key,
        **other,
    }


@pytest.fixture(scope="module")
def data(key) -> bytes:
    return build(**content(key))


@pytest.fixture(scope="module")
def public(key):
    return [key.public_key()]


def test_what_is_read_is_what_was_built(data, public):
    package = read(data, public)
    manifest = package.manifest
    assert (manifest.site, manifest.number, manifest.first, manifest.last) == ("bergen", 1, 1, 9)
    assert manifest.releases == ("r1", "r2")
    assert (manifest.format, manifest.complete, manifest.running) == (3, 9, "r1")
    assert (manifest.counts, manifest.expired) == (Tally(12, 2, 6, 0, 1, 3), {"quota": 1})
    assert (manifest.lineage, manifest.inventory) == ((4, 5), ("sha256:a", "sha256:b"))
    assert package.lineage == [b'{"n":4}', b'{"n":5}']
    (aggregate,), (sketch,) = package.aggregates.to_pylist(), package.sketches.to_pylist()
    assert (aggregate["release"], aggregate["window"].timestamp()) == ("r2", AT / 1e6)
    assert [aggregate[name] for name in ("rows", "anomalies", "outside", "score_sum")] == [30, 2, None, 1.5]
    assert sketches.read(sketch["sketch"], sketch["rows"], sketch["k"]).values.tolist() == [1.5]
    assert package.insights["fields"].to_pylist() == ['{"Flow":1.5}', "{}"]
    assert package.insights["sequence"].to_pylist() == [3, 5]
    assert package.insights["score"].to_pylist() == [0.9, None]
    assert package.feedback.to_pylist()[0]["note"] == "confirmed"
    assert package.histograms.to_pylist() == [
        {"release": "r1", "feature": "Flow", "rows": 30, "counts": [10, 20]}
    ]


def test_the_same_content_gives_the_same_bytes(data, key):
    assert build(**content(key)) == data


NOTHING = {name.partition(".")[0]: [] for name in (*parts.TABLES, "lineage")}


def names(data: bytes) -> list[str]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return archive.namelist()


@pytest.mark.parametrize("part", NOTHING)
def test_an_empty_part_is_left_out_and_keeps_its_columns(data, key, public, part):
    made = build(**content(key, **{part: []}))
    assert {*names(data)} - {*names(made)} == {name for name in parts.MEMBERS if name.startswith(part)}
    package = read(made, public)
    assert len(getattr(package, part)) == 0
    if part != "lineage":
        assert getattr(package, part).schema == getattr(read(data, public), part).schema


def test_a_package_may_hold_nothing(key, public):
    made = build(**content(key, **NOTHING))
    assert names(made) == [packages.MANIFEST]
    assert read(made, public).manifest.lineage == (0, 0)


def test_an_earlier_format_is_read_as_todays():
    one, two = (
        read(FORMAT_1, [GOLDEN_KEY.public_key()]),
        read(build(**content(GOLDEN_KEY)), [GOLDEN_KEY.public_key()]),
    )
    for name in NOTHING:
        ours, theirs = getattr(one, name), getattr(two, name)
        assert type(ours) is type(theirs)
        assert name == "lineage" or ours.schema == theirs.schema
    assert len(one.aggregates) == len(one.sketches) == len(one.lineage) == 0
    said = one.manifest
    assert (said.format, said.complete, said.counts, said.lineage) == (1, -1, None, (0, 0))
    assert (said.expired, said.inventory, said.running) == ({}, (), "")
    assert peek(FORMAT_1) == said


def test_the_lines_of_lineage_may_be_any_text(key, public):
    lines = ['{"ø":1}'.encode(), b"", b"x" * 100_000]
    package = read(build(**content(key, lineage=lines, lineage_last=3)), public)
    assert package.lineage == lines and package.manifest.lineage == (1, 3)


VALUES = {
    "number": st.floats(allow_nan=False, allow_infinity=False),
    "text": st.text(max_size=5),
    "truth": st.booleans(),
    "nothing": st.none(),
}
NAMES = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_fields_come_back_as_they_left(key, public, data):
    """One column a name, of one kind; nulls are left out."""
    kinds = data.draw(st.dictionaries(NAMES, st.sampled_from([*VALUES]), max_size=5))
    rows = data.draw(
        st.lists(
            st.fixed_dictionaries({}, optional={n: st.none() | VALUES[kind] for n, kind in kinds.items()}),
            min_size=1,
            max_size=5,
        )
    )
    made = [Insight(i, AT, "r1", "anomaly", None, None, row) for i, row in enumerate(rows)]
    package = read(build(**content(key, insights=made)), public)
    found = [msgspec.json.decode(text) for text in package.insights["fields"].to_pylist()]
    assert found == [{name: value for name, value in row.items() if value is not None} for row in rows]
    assert package.insights["fields"].to_pylist() == [
        msgspec.json.encode(row, order="sorted").decode() for row in found
    ]


def test_a_field_of_two_kinds_leaves_as_text(key, public):
    """The policy gives each field one kind; a column has to have one whatever happens."""
    rows = [Insight(i, AT, "r1", "anomaly", None, None, {"x": value}) for i, value in enumerate([1.5, "y"])]
    package = read(build(**content(key, insights=rows)), public)
    assert package.insights["fields"].to_pylist() == ['{"x":"1.5"}', '{"x":"y"}']


def test_a_file_must_bear_the_signed_name(tmp_path, data, public):
    right, wrong = tmp_path / "bergen-00000001.zip", tmp_path / "narvik-00000001.zip"
    for path in (right, wrong):
        path.write_bytes(data)
    assert read(right, public).manifest == peek(right)
    with pytest.raises(PackageError, match=r"signed name is bergen-00000001\.zip"):
        read(wrong, public)


def test_a_strangers_signature_is_refused(data):
    with pytest.raises(PackageError, match="signature is refused"):
        read(data, [STRANGER.public_key()])
    with pytest.raises(PackageError, match="signature is refused"):
        read(data, [])


def test_one_of_several_keys_is_enough(data, public):
    read(data, [STRANGER.public_key(), *public])


def test_a_package_that_is_too_large_is_not_read(data, public):
    with pytest.raises(PackageError, match="more than 100 bytes"):
        read(data, public, max_bytes=100)


@pytest.fixture(scope="module", params=[1, 2])
def whole(request, data, public):
    """A package of each format with all its members, and the keys to read it."""
    if request.param == 1:
        return FORMAT_1.read_bytes(), [GOLDEN_KEY.public_key()]
    assert names(data) == [packages.MANIFEST, *parts.MEMBERS]
    return data, public


def test_every_flipped_byte_is_refused(whole):
    data, keys = whole
    for position in range(len(data)):
        changed = bytearray(data)
        changed[position] ^= 1 << (position % 8)
        with pytest.raises(PackageError):
            read(bytes(changed), keys)


@settings(max_examples=100, deadline=None)
@given(st.integers(0), st.integers(1, 255))
def test_every_changed_byte_is_refused(whole, position, change):
    data, keys = whole
    changed = bytearray(data)
    changed[position % len(data)] ^= change
    with pytest.raises(PackageError):
        read(bytes(changed), keys)


def test_every_truncation_is_refused(whole):
    data, keys = whole
    for length in range(len(data)):
        with pytest.raises(PackageError):
            read(data[:length], keys)


@pytest.mark.parametrize("before", [True, False])
def test_bytes_around_the_package_are_refused(data, public, before):
    with pytest.raises(PackageError):
        read(b"hidden" + data if before else data + b"hidden", public)


def rezipped(data: bytes, **replaced: bytes) -> bytes:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        found = {name: archive.read(name) for name in archive.namelist()}
    return packages._zip(found | {name.replace("_", "."): value for name, value in replaced.items()})


@pytest.mark.parametrize("member", parts.MEMBERS)
def test_a_member_of_another_package_is_refused(data, key, public, member):
    rows = {
        "insights": content(key)["insights"][:1],
        "feedback": content(key)["feedback"] * 2,
        "histograms": content(key)["histograms"] * 2,
        "aggregates": content(key)["aggregates"] * 2,
        "sketches": content(key)["sketches"] * 2,
        "lineage": [b"{}"],
    }
    with zipfile.ZipFile(io.BytesIO(build(**content(key, number=2, **rows)))) as archive:
        part = archive.read(member)
    with pytest.raises(PackageError, match="digest or size"):
        read(rezipped(data, **{member.replace(".", "_"): part}), public)


@pytest.mark.parametrize("member", parts.MEMBERS)
def test_a_member_that_is_missing_is_refused(data, public, member):
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        left = {name: archive.read(name) for name in archive.namelist() if name != member}
    with pytest.raises(PackageError, match="the manifest lists"):
        read(packages._zip(left), public)


def test_members_in_another_order_are_refused(data, public):
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        turned = {name: archive.read(name) for name in reversed(archive.namelist())}
    with pytest.raises(PackageError, match="must hold"):
        read(packages._zip(turned), public)


def test_a_member_too_many_is_refused(data, public):
    with pytest.raises(PackageError, match="at most 7 and 4096"):
        read(rezipped(data, hidden_txt=b"x"), public)


def test_a_compressed_member_is_refused(data, public):
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            new.writestr(zipfile.ZipInfo(name, packages.EPOCH), old.read(name), zipfile.ZIP_DEFLATED)
    with pytest.raises(PackageError, match="compressed"):
        read(buffer.getvalue(), public)


def manifest_with(data: bytes, key, **changes) -> bytes:
    """The same package with another manifest, rightly signed: what only a faulty site would send."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        import base64

        found = msgspec.json.decode(archive.read(packages.MANIFEST))
        manifest = msgspec.json.decode(base64.b64decode(found["payload"]))
    signed = envelope(msgspec.json.encode(manifest | changes), packages.PAYLOAD_TYPE, key)
    return rezipped(data, manifest_dsse=signed)


@pytest.mark.parametrize("hint", [b"0" * 16, b"CANARY_a_longer_one"])
def test_an_envelope_that_carries_anything_else_is_refused(data, public, hint):
    """The key id is not signed; whatever stands in its place must not get through."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        signed = archive.read(packages.MANIFEST)
    keyid = msgspec.json.decode(signed)["signatures"][0]["keyid"].encode()
    with pytest.raises(PackageError, match="holds more than"):
        read(rezipped(data, manifest_dsse=signed.replace(keyid, hint)), public)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": 4}, "format 4, this version reads 1 to 3"),
        ({"format": 1}, "must have the fields"),
        ({"format": "2"}, "format 2, this version reads 1 to 3"),
        ({"format": None}, "format None"),
        ({"surprise": 1}, "malformed"),
        ({"lineage": [4, 6]}, "2 events, its manifest says 4 to 6"),
        ({"lineage": [0, 0]}, "2 events"),
        ({"lineage": [-1, 0]}, "2 events"),
        ({"inventory": ["sha256:a"] * 1_001}, "more than 1000"),
        ({"number": "one"}, "malformed"),
        ({"members": {}}, "lists"),
    ],
)
def test_a_signed_manifest_must_still_be_right(data, key, public, changes, message):
    with pytest.raises(PackageError, match=message):
        read(manifest_with(data, key, **changes), public)


def test_a_manifest_needs_all_its_fields(data, key, public):
    said = msgspec.to_builtins(read(data, public).manifest)
    del said["running"]
    signed = envelope(msgspec.json.encode(said), packages.PAYLOAD_TYPE, key)
    with pytest.raises(PackageError, match="must have the fields"):
        read(rezipped(data, manifest_dsse=signed), public)


def test_the_number_of_rows_must_be_right(data, key, public):
    members = msgspec.to_builtins(read(data, public).manifest.members)
    members["insights.parquet"]["rows"] = 7
    with pytest.raises(PackageError, match="2 rows, its manifest says otherwise"):
        read(manifest_with(data, key, members=members), public)


@pytest.mark.parametrize("junk", [b"", b"PK", b"not a zip at all" * 10, b"PK\x05\x06" + bytes(18)])
def test_junk_is_refused(junk, public):
    with pytest.raises(PackageError):
        read(junk, public)


# What a faulty site could sign: members that are not of their format, or unpack to too much.


def parquet(table: pa.Table, **options) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(table, buffer, **options)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda table: table.append_column("more", pa.array([1])), "other columns"),
        (lambda table: table.drop_columns("kind"), "other columns"),
        (lambda table: table.set_column(0, "sequence", pa.array(["3"])), "other columns"),
        (lambda table: table.append_column("fields", pa.array(["{}"])), "other columns"),
        (lambda table: table.append_column("fields", pa.array([{"b": 1.0, "a": 1.0}])), "other columns"),
        (lambda table: table.append_column("fields", pa.array([{"b": 1}])), "other columns"),
        (lambda table: table.append_column("fields", pa.array([{"b": {"c": 1.0}}])), "other columns"),
        (lambda table: pa.concat_tables([table, table]), "2 rows"),
    ],
)
def test_a_table_of_other_columns_is_refused(change, message):
    row = Insight(3, AT, "r1", "anomaly", 0.9, True, {})
    table = pq.read_table(pa.BufferReader(members.parquet(members.columns(parts.INSIGHTS, [row]))))
    # pyarrow sorts the fields of what it infers; here their order is the point.
    with pytest.raises(MemberError, match=message):
        members.read_table(parts.INSIGHTS, parquet(change(table)), 1, 10_000, form=parts.FORMAT)


def test_a_table_that_unpacks_to_too_much_is_refused():
    """However little it says that it unpacks to: one long text, told once, many rows refer to."""
    rows = [Word(i, i, AT, "r1", True, "x" * 10_000, None, {}) for i in range(10_000)]
    data = members.parquet(members.columns(parts.FEEDBACK, rows))
    assert len(data) < 100_000
    assert members.read_table(parts.FEEDBACK, data, 10_000, 200_000_000, form=parts.FORMAT).num_rows == 10_000
    with pytest.raises(MemberError, match="unpacks to"):
        members.read_table(parts.FEEDBACK, data, 10_000, 1_000_000, form=parts.FORMAT)


def test_lineage_that_unpacks_to_too_much_is_refused():
    data = members.lines([b"x" * 10_000_000])
    assert len(data) < 10_000
    with pytest.raises(MemberError, match="more than 1000 bytes"):
        members.read_lines(data, 1, 1_000)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"junk",
        members.lines([b"{}"])[:-1],
        members.lines([b"{}", b"{}"]),
        pa.Codec("zstd").compress(b"{}", asbytes=True),
        members.lines([b"{}"]) + b"junk",
    ],
)
def test_lineage_that_is_not_so_many_whole_lines_is_refused(data):
    with pytest.raises(MemberError):
        members.read_lines(data, 1, 1_000)


@settings(max_examples=500, deadline=None)
@given(st.data())
def test_a_member_that_was_changed_is_read_or_refused(data):
    """Behind a good signature there may still be a faulty site: nothing but MemberError comes of it."""
    row = Insight(3, AT, "r1", "anomaly", 0.9, True, {"Flow": 1.5, "Type": "x"})
    whole = bytearray(members.parquet(members.columns(parts.INSIGHTS, [row] * 3)))
    for _ in range(data.draw(st.integers(1, 3))):
        whole[data.draw(st.integers(0, len(whole) - 1))] ^= data.draw(st.integers(1, 255))
    with suppress(MemberError):
        assert members.read_table(parts.INSIGHTS, bytes(whole), 3, 100_000, form=parts.FORMAT).num_rows == 3
