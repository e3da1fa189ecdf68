"""The file of a return package, format 1: how its parts become one ZIP and are checked coming back.

One ZIP, nothing compressed twice, with these members in this order:

- `manifest.dsse`: the manifest as JSON, signed by the site's key in a DSSE envelope;
- `insights.parquet`, `feedback.parquet`, `histograms.parquet`: what the manifest gives digest and size of.

The same content gives the same bytes, and a reader accepts no other bytes than those: what a ZIP keeps
outside its members (times, comments, gaps) cannot carry or hide anything. What goes into a package is
`packing`'s work.
"""

from __future__ import annotations

import base64
import hashlib
import io
import re
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from edge_ai_assets.returns.parts import FORMAT, MEMBERS, Insight, Manifest, Member, Word, schemas
from edge_ai_assets.returns.policy import Histogram

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

PAYLOAD_TYPE = "application/vnd.edge-ai.return-package+json"
MANIFEST = "manifest.dsse"
NAME = re.compile(r"(?P<site>[A-Za-z0-9][A-Za-z0-9._-]{0,63})-(?P<number>[0-9]{8,})\.zip")
MAX_BYTES = 256 * 1024 * 1024
EPOCH = (1980, 1, 1, 0, 0, 0)


class PackageError(ValueError):
    """A package that must not be used; the message names the member or field and what is wrong with it."""


class Package(msgspec.Struct, frozen=True):
    """A package that was checked; the tables are as in `schemas`."""

    manifest: Manifest
    digest: str
    """SHA-256 of the file."""
    insights: Any
    feedback: Any
    histograms: Any


def build(
    *,
    site: str,
    number: int,
    previous: str,
    policy: str,
    created_at: int,
    first: int,
    last: int,
    insights: list[Insight],
    feedback: list[Word],
    histograms: list[Histogram],
    key: Ed25519PrivateKey,
) -> bytes:
    """The bytes of a package, signed with the site's private key; the same arguments give the same bytes."""
    from edge_ai_assets.delivery.signing import envelope

    contents: dict[str, list[Any]] = dict(zip(MEMBERS, (insights, feedback, histograms), strict=True))
    parts = {name: _parquet(name, rows) for name, rows in contents.items()}
    manifest = Manifest(
        site=site,
        number=number,
        previous=previous,
        policy=policy,
        created_at=created_at,
        first=first,
        last=last,
        releases=tuple(sorted({item.release for rows in contents.values() for item in rows})),
        members={
            name: Member(sha256=hashlib.sha256(data).hexdigest(), size=len(data), rows=len(contents[name]))
            for name, data in parts.items()
        },
    )
    return _zip({MANIFEST: envelope(msgspec.json.encode(manifest), PAYLOAD_TYPE, key), **parts})


def read(source: Path | bytes, keys: Sequence[Ed25519PublicKey], *, max_bytes: int = MAX_BYTES) -> Package:
    """Check a package and read it. Nothing of it is used before its signature and digests are right.

    Args:
        source: its file, whose name must be the manifest's, or its bytes.
        keys: the public keys one of which must have signed it.
        max_bytes: a larger file is not read, and no table may unpack to more than eight times as much.

    Raises:
        PackageError: it is too large, damaged, not signed by one of the keys, of a newer format, or not as
            its manifest says.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    data = _bytes(source, max_bytes)
    manifest, parts = _open(data, keys)
    if isinstance(source, Path) and source.name != manifest.name:
        raise PackageError(f"{source.name}: the signed name is {manifest.name}")
    tables = {}
    for name, schema in schemas().items():
        try:
            file = pq.ParquetFile(pa.BufferReader(parts[name]))
            unpacked = sum(
                file.metadata.row_group(i).total_byte_size for i in range(file.metadata.num_row_groups)
            )
            if unpacked > 8 * max_bytes:
                raise PackageError(f"{name} unpacks to {unpacked} bytes, the limit is {8 * max_bytes}")
            if not file.schema_arrow.equals(schema):
                raise PackageError(f"{name} has other columns than format {FORMAT}")
            if file.metadata.num_rows != manifest.members[name].rows:
                raise PackageError(f"{name} has {file.metadata.num_rows} rows, its manifest says otherwise")
            tables[name] = file.read()
        except pa.ArrowException as error:
            raise PackageError(f"{name} is no readable Parquet: {error}") from error
    return Package(manifest, hashlib.sha256(data).hexdigest(), *(tables[name] for name in MEMBERS))


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
    from edge_ai_assets.delivery.errors import DeliveryError
    from edge_ai_assets.delivery.signing import open_envelope

    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            if archive.namelist() != [MANIFEST, *MEMBERS]:
                raise PackageError(
                    f"the package holds {archive.namelist()}, it must hold {[MANIFEST, *MEMBERS]}"
                )
            if any(
                item.compress_type != zipfile.ZIP_STORED or item.file_size > len(data)
                for item in archive.filelist
            ):
                raise PackageError("a member is compressed or larger than its package")
            parts = {name: archive.read(name) for name in archive.namelist()}
    except (zipfile.BadZipFile, EOFError, OSError, ValueError, NotImplementedError, RuntimeError) as error:
        if isinstance(error, PackageError):
            raise
        raise PackageError(f"the package is damaged: {error}") from error
    if _zip(parts) != data:
        raise PackageError("the package holds bytes outside its members")
    envelope = parts.pop(MANIFEST)
    try:
        payload = open_envelope(envelope, PAYLOAD_TYPE, keys)
    except DeliveryError as error:
        raise PackageError(f"the package's signature is refused: {error}") from error
    if not any(envelope == _envelope(payload, key, envelope) for key in keys):
        raise PackageError("the envelope around the manifest holds more than manifest and signature")
    try:
        found = msgspec.json.decode(payload)
        if isinstance(found, dict) and found.get("format") != FORMAT:
            raise PackageError(f"package format {found.get('format')}, this version reads {FORMAT}")
        manifest = msgspec.convert(found, Manifest)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise PackageError(f"the manifest is malformed: {error}") from error
    if set(manifest.members) != set(MEMBERS):
        raise PackageError(f"the manifest lists {sorted(manifest.members)}")
    for name, member in manifest.members.items():
        if len(parts[name]) != member.size or hashlib.sha256(parts[name]).hexdigest() != member.sha256:
            raise PackageError(f"{name} is not what the manifest says: other digest or size")
    return manifest, parts


def _envelope(payload: bytes, key: Ed25519PublicKey, like: bytes) -> bytes:
    """The one form of an envelope with this payload and signer, and the valid signature that `like` holds."""
    from edge_ai_assets.delivery.signing import key_id

    signature = base64.b64decode(msgspec.json.decode(like)["signatures"][0]["sig"])
    entry = {"keyid": key_id(key), "sig": base64.b64encode(signature).decode()}
    text = base64.b64encode(payload).decode()
    return msgspec.json.encode({"payload": text, "payloadType": PAYLOAD_TYPE, "signatures": [entry]})


def _zip(parts: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, data in parts.items():
            item = zipfile.ZipInfo(name, EPOCH)
            item.create_system = 3
            item.external_attr = 0o600 << 16
            archive.writestr(item, data)
    return buffer.getvalue()


def _parquet(name: str, rows: list[Any]) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = schemas()[name]
    columns = {}
    for field in schema:
        values = [getattr(row, field.name) for row in rows]
        if field.name == "fields":
            values = [msgspec.json.encode(value, order="sorted").decode() for value in values]
        columns[field.name] = pa.array(values, field.type)
    buffer = io.BytesIO()
    pq.write_table(pa.table(columns, schema), buffer, compression="zstd", compression_level=9)
    return buffer.getvalue()
