"""The ZIP around a package, opened without trusting it: whoever made the file does not decide what opening it
costs.

What is in it, and whether it is genuine, is the matter of `packages` and `foreign`.
"""

from __future__ import annotations

import struct
import zipfile
from typing import BinaryIO

from edge_ai_assets.returns.package.parts import MEMBERS

MANIFEST = "manifest.dsse"
MAX_ENTRIES = 1 + len(MEMBERS)
MAX_DIRECTORY = 4 * 1024
"""Bytes of the central directory; that of a whole package has less than 500."""
REASON_CHARACTERS = 500
_END = struct.Struct("<4s4H2LH")
"""End of central directory record. Source: APPNOTE.TXT 6.3.10, section 4.3.16."""


def opened(file: BinaryIO) -> zipfile.ZipFile:
    """The archive in a file, once its directory is known to be small.

    Raises:
        zipfile.BadZipFile: it is none, has more than MAX_ENTRIES entries, a directory of more than
            MAX_DIRECTORY bytes, a comment, or the extension for large files (ZIP64), which says both anew.
    """
    size = file.seek(0, 2)
    tail = size - file.seek(max(0, size - _END.size - 20))
    end = file.read(tail)
    if len(end) < _END.size:
        raise zipfile.BadZipFile("the file is too short for a ZIP")
    mark, *_, here, entries, directory, _, comment = _END.unpack(end[-_END.size :])
    if mark != b"PK\5\6" or comment:
        raise zipfile.BadZipFile("it does not end as a ZIP without a comment does")
    if end.startswith(b"PK\6\7") and tail > _END.size:
        raise zipfile.BadZipFile("it is a ZIP64 file")
    if max(here, entries) > MAX_ENTRIES or directory > MAX_DIRECTORY:
        raise zipfile.BadZipFile(
            f"it has {max(here, entries)} entries and a directory of {directory} bytes, a package has at "
            f"most {MAX_ENTRIES} and {MAX_DIRECTORY}"
        )
    return zipfile.ZipFile(file)


def short(reason: str) -> str:
    """A reason that holds text of a foreign file, cut to what people read."""
    return reason if len(reason) <= REASON_CHARACTERS else f"{reason[: REASON_CHARACTERS - 1]}…"
