"""Files that came from elsewhere: opened and looked at without trusting anything about them.

Only what is cheap is found out here: whether it is worth to carry one to the inbox, and who signed its
manifest; not whether the rest of it is genuine.
"""

from __future__ import annotations

import base64
import os
import stat
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import msgspec

from edge_ai_assets.returns.package import archives, manifests
from edge_ai_assets.returns.package.parts import Manifest

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

MAX_MANIFEST = 1024 * 1024
"""Bytes of a manifest in its envelope."""


class Rejected(Exception):
    """A file that is not taken; the message says why."""


class _Envelope(msgspec.Struct):
    payload: str


class _Said(msgspec.Struct):
    site: str
    number: int


def opened(path: Path) -> BinaryIO:
    """Open a regular file, without following links or waiting for pipes; Rejected when it is none."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW)
    except OSError as error:
        raise Rejected(f"it cannot be opened, or is a link: {error.strerror}") from error
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise Rejected("it is no regular file")
    return os.fdopen(handle, "rb")


def package_of(file: BinaryIO) -> tuple[str, int]:
    """The site and number that a package's manifest gives, of whatever format; nothing of it is verified.

    Raises:
        Rejected: it is no package, or too damaged to tell.
    """
    signed = _signed(file)
    try:
        envelope = msgspec.json.decode(signed, type=_Envelope)
        said = msgspec.json.decode(base64.b64decode(envelope.payload), type=_Said)
    except (ValueError, RecursionError) as error:  # msgspec's errors are ValueErrors, as base64's
        raise Rejected(archives.short(f"it is no return package, or a damaged one: {error}")) from error
    return said.site, said.number


def manifest_of(path: Path, keys: Sequence[Ed25519PublicKey]) -> Manifest:
    """The manifest of a file, if one of the keys signed it; what else is in the file is not looked at.

    Raises:
        Rejected: it is no package, or none of the keys signed its manifest.
    """
    with opened(path) as file:
        signed = _signed(file)
    try:
        return manifests.opened(signed, keys)
    except manifests.PackageError as error:
        raise Rejected(archives.short(str(error))) from error


def _signed(file: BinaryIO) -> bytes:
    """The envelope of the manifest, as it stands in the file."""
    try:
        with archives.opened(file) as archive:
            member = archive.getinfo(archives.MANIFEST)
            size = max(member.file_size, member.compress_size)
            if member.compress_type != zipfile.ZIP_STORED or size > MAX_MANIFEST:
                raise Rejected("its manifest is compressed or too large")
            return archive.read(member)
    except Rejected:
        raise
    except Exception as error:  # whatever a hostile archive makes zipfile raise
        raise Rejected(archives.short(f"it is no return package, or a damaged one: {error}")) from error
