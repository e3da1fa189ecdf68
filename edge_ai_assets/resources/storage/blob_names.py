"""Names of blobs as paths of files: which can be, and which are refused because they lead elsewhere.

A container takes nearly any name; whoever may write there must not thereby choose where files are put here.
"""

from __future__ import annotations

PART = 255
"""Bytes that a file system takes for the name of one file or folder."""


def refused(name: str) -> str | None:
    """Why a blob's name cannot be that of a file below a folder; None when it can.

    Hidden files and folders are refused too: here they are notes, locks and files that are being written.
    """
    for part in name.split("/"):
        if part in ("", ".", ".."):
            return "an empty part, '.' or '..' in a name leads elsewhere"
        if part.startswith("."):
            return "names that begin with a dot are those of files that are being written"
        if "\\" in part or not part.isprintable():
            return "a backslash, or a character that cannot be printed, is not taken"
        if len(part.encode("utf-8", "surrogatepass")) > PART:
            return f"a part of the name has more than {PART} bytes"
    return None
