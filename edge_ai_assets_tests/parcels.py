"""Sealed packages of any size whose content nobody looks at, for tests of how packages travel."""

from __future__ import annotations

import base64
import hashlib
import io
import random
import zipfile
from pathlib import Path

import msgspec

from edge_ai_assets.returns.outbox.outbox import Outbox, PackageRow
from edge_ai_assets.returns.package import packages
from edge_ai_assets.returns.package.parts import Manifest, name_of

POLICY = "0c" * 32


def parcel(site: str, number: int, size: int) -> bytes:
    """What looks like a package from outside: a manifest, and about `size` bytes that differ by number."""
    manifest = Manifest(site, number, "", POLICY, 5, 1, 2, (), {})
    envelope = {"payload": base64.b64encode(msgspec.json.encode(manifest)).decode()}
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr(zipfile.ZipInfo(packages.MANIFEST), msgspec.json.encode(envelope))
        archive.writestr(zipfile.ZipInfo("insights.parquet"), random.Random(number).randbytes(size))
    return buffer.getvalue()


def seal(outbox: Outbox, spool: Path, site: str, sizes: list[int]) -> list[PackageRow]:
    """Put parcels of these sizes into a spool and its outbox, after those that are there."""
    spool.mkdir(exist_ok=True)
    rows = []
    for size in sizes:
        last = outbox.last_package()
        number, previous = (last.number + 1, last.digest) if last else (1, "")
        data = parcel(site, number, size)
        (spool / name_of(site, number)).write_bytes(data)
        digest = hashlib.sha256(data).hexdigest()
        rows.append(PackageRow(number, name_of(site, number), digest, previous, 0, 0, len(data), number))
        outbox.seal(rows[-1], [], [], {}, {})
    return rows
