"""Making a blob of a file: once or in place of another, in one request or in blocks.

As in `blob_content`, the caller talks to the account, around these calls.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, BinaryIO

from edge_ai_assets.resources.storage.account import missing
from edge_ai_assets.resources.storage.blob_content import BLOCK, DIGEST, Content

if TYPE_CHECKING:
    from azure.storage.blob import BlobClient

WHOLE = 256 * 1024
"""Bytes up to which a blob is made in one request: the client wants all of them sent within one time-out."""
SLOWEST = 100_000
"""Bytes per second below which the way to the account counts as down: an answer may take so much longer."""
TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".svg": "image/svg+xml",
    ".png": "image/png",
}
"""Of what browsers ask for, by the end of its name."""


def put(
    blob: BlobClient,
    file: BinaryIO,
    content: Content,
    *,
    once: bool,
    metadata: Mapping[str, str],
    cache: str | None,
    read_seconds: float,
) -> bool:
    """Make a blob of a file: in one request, or in blocks of which those that wait there are not sent again.

    Args:
        content: the file's.
        once: whether only if nothing is there under this name.
        metadata: of the blob, besides its digest.
        cache: the `Cache-Control` with which it is handed out; the type it gets goes by its name.
        read_seconds: before a server that does not answer is out of reach, whatever is sent.

    Returns:
        Whether it was made; False only with `once`, when something is there.
    """
    from azure.core import MatchConditions
    from azure.core.exceptions import ResourceExistsError, ResourceModifiedError
    from azure.storage.blob import BlobBlock, ContentSettings

    options: dict[str, Any] = {
        "metadata": {**metadata, DIGEST: content.sha256},
        "content_settings": ContentSettings(
            content_type=TYPES.get(PurePosixPath(blob.blob_name).suffix, "application/octet-stream"),
            cache_control=cache,
            content_md5=bytearray(content.md5),
        ),
    }
    file.seek(0)
    try:
        if content.size <= WHOLE:
            blob.upload_blob(
                file.read(),
                overwrite=not once,
                validate_content=True,
                read_timeout=read_seconds + content.size / SLOWEST,
                **options,
            )
        else:
            _stage(blob, file, content, read_seconds)
            blocks = [
                BlobBlock(_block_id(index, content.sha256)) for index in range(-(-content.size // BLOCK))
            ]
            if once:
                options["match_condition"] = MatchConditions.IfMissing
            blob.commit_block_list(blocks, **options)
    except (ResourceExistsError, ResourceModifiedError):
        if not once:
            raise
        return False
    return True


def _stage(blob: BlobClient, file: BinaryIO, content: Content, read_seconds: float) -> None:
    there = _waiting(blob)
    for index, first in enumerate(range(0, content.size, BLOCK)):
        length, name = min(BLOCK, content.size - first), _block_id(index, content.sha256)
        if there.get(name) == length:
            continue
        file.seek(first)
        data = file.read(length)
        # Read piece by piece: of bytes the client would want all sent within one time-out.
        blob.stage_block(
            name,
            io.BytesIO(data),
            length,
            read_timeout=read_seconds + length / SLOWEST,
            transactional_content_md5=_md5(data),
        )


def _waiting(blob: BlobClient) -> dict[str, int]:
    """The blocks of earlier attempts that wait to become a blob: name to size."""
    from azure.core.exceptions import ResourceNotFoundError

    try:
        _, found = blob.get_block_list("uncommitted")
    except ResourceNotFoundError as error:
        if missing(error):
            return {}
        raise
    return {block.id: block.size for block in found}


def _block_id(index: int, digest: str) -> str:
    """The name of a block: blocks of another file under the same name have others, all of one length."""
    return f"{index:08}-{digest[:16]}"


def _md5(data: bytes) -> bytes:
    """By which the other side checks a block as it comes; no protection against anybody."""
    return hashlib.md5(data, usedforsecurity=False).digest()
