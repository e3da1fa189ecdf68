"""The file of a return package: how its members become one ZIP and are checked coming back.

One ZIP, nothing compressed twice, with these members in this order:

- `manifest.dsse`: the manifest as JSON, signed by the site's key in a DSSE envelope;
- what the manifest gives digest and size of, in the order of `parts.MEMBERS`. Since format 2 an empty one is
  left out; in format 1 there are always insights, feedback and histograms, and nothing else.

The same content gives the same bytes, and a reader accepts no other bytes than those: what a ZIP keeps
outside its members (times, comments, gaps) cannot carry or hide anything. The bytes of a member are
`members`' work, what goes into a package is `packing`'s.
"""

from __future__ import annotations

import base64
import hashlib
import io
import re
import struct
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from edge_ai_assets.returns.egress.policy import Histogram
from edge_ai_assets.returns.outbox.schema import Tally
from edge_ai_assets.returns.package import archives, manifests, members
from edge_ai_assets.returns.package.archives import MANIFEST
from edge_ai_assets.returns.package.manifests import PAYLOAD_TYPE, PackageError
from edge_ai_assets.returns.package.members import MemberError
from edge_ai_assets.returns.package.parts import (
    LINEAGE,
    MEMBERS,
    TABLES,
    Aggregate,
    Insight,
    Manifest,
    Member,
    Sketch,
    Word,
    schemas,
)

if TYPE_CHECKING:
    import pyarrow as pa
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

__all__ = [
    "MANIFEST",
    "MAX_BYTES",
    "NAME",
    "PAYLOAD_TYPE",
    "Package",
    "PackageError",
    "build",
    "peek",
    "read",
]

NAME = re.compile(r"(?P<site>[A-Za-z0-9][A-Za-z0-9._-]{0,63})-(?P<number>[0-9]{8,})\.zip")
MAX_BYTES = 256 * 1024 * 1024
MAX_LINEAGE = 64 * 1024 * 1024
"""Bytes of lineage, unpacked: a site packs half of that at most."""
EPOCH = (1980, 1, 1, 0, 0, 0)


class Package(msgspec.Struct, frozen=True):
    """A package that was checked; the tables are as in `schemas`."""

    manifest: Manifest
    digest: str
    """SHA-256 of the file."""
    insights: Any
    feedback: Any
    histograms: Any
    aggregates: Any
    sketches: Any
    lineage: list[bytes]
    """Events as lines without their end; what they mean is `lineage`'s matter."""


def build(
    *,
    site: str,
    number: int,
    previous: str,
    policy: str,
    created_at: int,
    first: int,
    last: int,
    insights: Sequence[Insight] | pa.Table = (),
    feedback: Sequence[Word] = (),
    histograms: Sequence[Histogram] = (),
    aggregates: Sequence[Aggregate] = (),
    sketches: Sequence[Sketch] = (),
    lineage: Sequence[bytes] = (),
    lineage_last: int = 0,
    complete: int = -1,
    counts: Tally | None = None,
    expired: Mapping[str, int] | None = None,
    inventory: Sequence[str] = (),
    running: str = "",
    key: Ed25519PrivateKey,
) -> bytes:
    """The bytes of a package of today's format, signed with the site's private key.

    The same arguments give the same bytes. They are the manifest's and the members' parts; `lineage_last` is
    the number of the last event in `lineage`, whose numbers have no gaps. Insights may be a table already.
    """
    given = (insights, feedback, histograms, aggregates, sketches)
    tables = {
        name: members.columns(name, rows) if isinstance(rows, Sequence) else rows
        for name, rows in zip(TABLES, given, strict=True)
        if len(rows)
    }
    releases = {
        release for table in tables.values() for release in table.column("release").unique().to_pylist()
    }
    rows = {name: table.num_rows for name, table in tables.items()}
    parts = {name: members.parquet(table) for name, table in tables.items()}
    if lineage:
        rows[LINEAGE], parts[LINEAGE] = len(lineage), members.lines(lineage)
    manifest = Manifest(
        site=site,
        number=number,
        previous=previous,
        policy=policy,
        created_at=created_at,
        first=first,
        last=last,
        releases=tuple(sorted(releases)),
        members={
            name: Member(sha256=hashlib.sha256(data).hexdigest(), size=len(data), rows=rows[name])
            for name, data in parts.items()
        },
        complete=complete,
        counts=counts,
        expired=dict(sorted((expired or {}).items())),
        lineage=(lineage_last - len(lineage) + 1, lineage_last) if lineage else (0, 0),
        inventory=tuple(sorted(inventory)),
        running=running,
    )
    return _zip({MANIFEST: manifests.sealed(manifest, key), **parts})


def read(source: Path | bytes, keys: Sequence[Ed25519PublicKey], *, max_bytes: int = MAX_BYTES) -> Package:
    """Check a package and read it. Nothing of it is used before its signature and digests are right.

    Args:
        source: its file, whose name must be the manifest's, or its bytes.
        keys: the public keys one of which must have signed it.
        max_bytes: a larger file is not read, no table may unpack to more than eight times as much, and
            lineage to MAX_LINEAGE.

    Returns:
        The same tables whatever its format; what an earlier one has not is empty.

    Raises:
        PackageError: it is too large, damaged, not signed by one of the keys, of a newer format, or not as
            its manifest says.
    """
    data = _bytes(source, max_bytes)
    manifest, parts = _open(data, keys)
    if isinstance(source, Path) and source.name != manifest.name:
        raise PackageError(f"{source.name}: the signed name is {manifest.name}")
    tables: dict[str, Any] = {name: schema.empty_table() for name, schema in schemas().items()}
    lineage: list[bytes] = []
    for name, member in manifest.members.items():
        try:
            if name == LINEAGE:
                lineage = members.read_lines(parts[name], member.rows, MAX_LINEAGE)
            else:
                limit = 8 * max_bytes
                tables[name] = members.read_table(name, parts[name], member.rows, limit, form=manifest.format)
        except MemberError as error:
            raise PackageError(f"{name} {error}") from error
    first, last = manifest.lineage
    if len(lineage) != (last - first + 1 if last else 0):
        raise PackageError(f"{LINEAGE} has {len(lineage)} events, its manifest says {first} to {last}")
    by_part = {name.partition(".")[0]: table for name, table in tables.items()}
    return Package(manifest, hashlib.sha256(data).hexdigest(), lineage=lineage, **by_part)


def peek(path: Path) -> Manifest:
    """The manifest, without checking its signature: for the site that made the package, not for readers."""
    with zipfile.ZipFile(path) as archive:
        envelope = msgspec.json.decode(archive.read(MANIFEST))
    return msgspec.json.decode(base64.b64decode(envelope["payload"]), type=Manifest)


def _bytes(source: Path | bytes, max_bytes: int) -> bytes:
    if isinstance(source, Path):
        with source.open("rb") as file:
            source = file.read(max_bytes + 1)
    if len(source) > max_bytes:
        raise PackageError(f"the package has more than {max_bytes} bytes")
    return source


def _open(data: bytes, keys: Sequence[Ed25519PublicKey]) -> tuple[Manifest, dict[str, bytes]]:
    try:
        with archives.opened(io.BytesIO(data)) as archive:
            if (names := archive.namelist()) != [MANIFEST, *(name for name in MEMBERS if name in names)]:
                raise PackageError(
                    archives.short(f"it must hold {MANIFEST} and some of {[*MEMBERS]}; it holds {names}")
                )
            stored = all(item.compress_type == zipfile.ZIP_STORED for item in archive.filelist)
            if not stored or sum(item.file_size for item in archive.filelist) > len(data):
                raise PackageError("a member is compressed, or they are larger than the package")
            parts = {name: archive.read(name) for name in names}
    except PackageError:
        raise
    except (zipfile.BadZipFile, EOFError, OSError, ValueError, RuntimeError, struct.error) as error:
        raise PackageError(f"the package is damaged: {error}") from error
    if _zip(parts) != data:
        raise PackageError("the package holds bytes outside its members")
    manifest = manifests.opened(parts.pop(MANIFEST), keys)
    if set(manifest.members) != set(parts):
        raise PackageError(f"the manifest lists {sorted(manifest.members)}, there are {sorted(parts)}")
    for name, member in manifest.members.items():
        if len(parts[name]) != member.size or hashlib.sha256(parts[name]).hexdigest() != member.sha256:
            raise PackageError(f"{name} is not what the manifest says: other digest or size")
    return manifest, parts


def _zip(parts: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, data in parts.items():
            item = zipfile.ZipInfo(name, EPOCH)
            item.create_system = 3
            item.external_attr = 0o600 << 16
            archive.writestr(item, data)
    return buffer.getvalue()
