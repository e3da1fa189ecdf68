"""Files on a medium that came from elsewhere: opened and looked at without trusting anything about them.

Only whether it is worth to carry one to the inbox is found out here, not whether it is genuine.
"""

from __future__ import annotations

import base64
import os
import stat
import zipfile
from pathlib import Path
from typing import BinaryIO

import msgspec

from edge_ai_assets.returns import packages

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
    try:
        with zipfile.ZipFile(file) as archive:
            member = archive.getinfo(packages.MANIFEST)
            if member.compress_type != zipfile.ZIP_STORED or member.file_size > MAX_MANIFEST:
                raise Rejected("its manifest is compressed or too large")
            envelope = msgspec.json.decode(archive.read(member), type=_Envelope)
        said = msgspec.json.decode(base64.b64decode(envelope.payload), type=_Said)
    except Rejected:
        raise
    except Exception as error:  # whatever a hostile archive makes zipfile and its decoders raise
        raise Rejected(f"it is no return package, or a damaged one: {error}") from error
    return said.site, said.number
