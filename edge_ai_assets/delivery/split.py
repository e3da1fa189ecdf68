"""A bundle in numbered parts, for media that take no large file (FAT32: 4 GiB), and whole again.

Beside the parts lies `NAME.parts`, with sizes and checksums: what is missing or damaged is named and can be
copied again alone. It guards against damage only: what the bundle is trusted by stands in the bundle.
"""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path
from typing import Annotated, BinaryIO

import msgspec

from edge_ai_assets.delivery import durable
from edge_ai_assets.delivery.errors import MalformedError, MismatchError, MissingError
from edge_ai_assets.delivery.manifest import Digest, decode, digest_of_chunks

FORMAT = 1
SUFFIX = ".parts"
LEAST = 1 << 20
MAX_PARTS = 999
MAX_INDEX = 1 << 20
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}\.bundle")
_SIZE = re.compile(r"([1-9][0-9]{0,5})(MiB|GiB)")


class Part(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`NAME.001` and on."""

    name: str
    size: Annotated[int, msgspec.Meta(ge=1)]
    digest: Digest


class Parts(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`NAME.parts`"""

    bundle: str
    digest: Digest
    parts: Annotated[tuple[Part, ...], msgspec.Meta(min_length=1, max_length=MAX_PARTS)]
    format: int = FORMAT


def bytes_of(text: str) -> int:
    """A size such as 4GiB or 700MiB; ValueError for another form, or less than a MiB."""
    match = _SIZE.fullmatch(text)
    if not match:
        raise ValueError(f"{text!r} is no size: a whole number with MiB or GiB, such as 4GiB")
    # FAT32 takes one byte less than 4 GiB, which is what people mean who say 4GiB.
    return min(int(match[1]) << {"MiB": 20, "GiB": 30}[match[2]], 1 << 62) - (text == "4GiB")


def split(path: Path, size: int) -> Path:
    """Put a bundle into parts beside it, of at most `size` bytes, in its place; the path of `NAME.parts`.

    Raises:
        MalformedError: that would be too many parts.
    """
    total = path.stat().st_size
    if not size >= LEAST or -(-total // size) > MAX_PARTS:
        raise MalformedError(f"{path} has {total} bytes: parts of {size} are too small, or too many")
    parts, whole = [], hashlib.sha256()
    with durable.locked(path.parent / ".lock"):
        with durable.open_regular(path) as file:
            number = 0
            while left := min(size, total - file.tell()):
                number += 1
                name = f"{path.name}.{number:03}"
                with durable.replacing(path.with_name(name)) as out:
                    parts.append(Part(name, left, _copied(file, out, left, whole)))
        index = path.with_name(path.name + SUFFIX)
        with durable.replacing(index) as out:
            out.write(msgspec.json.encode(Parts(path.name, f"sha256:{whole.hexdigest()}", tuple(parts))))
        path.unlink()
    return index


def join(index: Path, into: Path) -> Path:
    """Make a bundle of its parts in folder `into`, whole or not at all; its path. One that is there stays.

    Raises:
        MissingError, MismatchError: a part is not there, or damaged: the message names it.
        MalformedError: it is no list of parts.
    """
    found = decode(durable.read_bounded(index, MAX_INDEX), Parts, str(index))
    if found.format != FORMAT:
        raise MalformedError(
            f"{index} has format {found.format}, this version reads {FORMAT}; upgrade it first"
        )
    names = [f"{found.bundle}.{number:03}" for number in range(1, len(found.parts) + 1)]
    if not _NAME.fullmatch(found.bundle) or [part.name for part in found.parts] != names:
        raise MalformedError(f"{index} is refused: its parts are not named after {found.bundle!r}")
    path = into / found.bundle
    durable.make_folder(into)
    with durable.locked(into / ".lock"):
        if path.exists() and _same(path, found.digest):
            return path
        lost = [part.name for part in found.parts if not index.with_name(part.name).is_file()]
        if lost:
            raise MissingError(
                f"{index}: {', '.join(lost)} of {len(names)} parts are missing: copy them again"
            )
        whole = hashlib.sha256()
        with durable.replacing(path) as out:
            for part in found.parts:
                with durable.open_regular(index.with_name(part.name)) as file:
                    right = os.fstat(file.fileno()).st_size == part.size
                    if not right or _copied(file, out, part.size, whole) != part.digest:
                        raise MismatchError(f"{index}: {part.name} is damaged: copy it again")
            if f"sha256:{whole.hexdigest()}" != found.digest:
                raise MismatchError(f"{index}: its parts are not those of one bundle")
    return path


def _copied(file: BinaryIO, out: BinaryIO, size: int, whole: hashlib._Hash) -> Digest:
    hashed = hashlib.sha256()
    while size and (chunk := file.read(min(size, durable.CHUNK))):
        size -= len(chunk)
        hashed.update(chunk)
        whole.update(chunk)
        out.write(chunk)
    return f"sha256:{hashed.hexdigest()}"


def _same(path: Path, digest: Digest) -> bool:
    with durable.open_regular(path) as file:
        return digest_of_chunks(durable.chunks_of(file)) == digest
