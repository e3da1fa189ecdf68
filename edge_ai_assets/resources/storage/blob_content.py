"""The content of one blob: what it is, and fetching it in parts. Making one is `blob_put`'s work.

Nothing here talks for itself: the caller does, around these calls, and so says what they were for. What a
blob means, and whether it may be replaced, is the callers' business too.
"""

from __future__ import annotations

import hashlib
import io
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from edge_ai_assets.delivery import durable
from edge_ai_assets.resources.storage.account import missing
from edge_ai_assets.returns.road.link import LinkDown

if TYPE_CHECKING:
    from azure.storage.blob import BlobClient, BlobProperties, ContainerClient

DIGEST = "sha256"
"""The metadata of a blob that holds its digest; written with the blob, in one step."""
BLOCK = 4 * 1024 * 1024
"""Bytes of a larger one that are sent, or asked for, at once, and kept when the next ones do not come."""


@dataclass(frozen=True)
class Content:
    """What a file holds."""

    size: int
    sha256: str
    md5: bytes


def content_of(file: BinaryIO) -> Content:
    """Of the rest of a file, which is read to its end."""
    size, sha256, md5 = 0, hashlib.sha256(), hashlib.md5(usedforsecurity=False)
    for chunk in durable.chunks_of(file):
        size += len(chunk)
        sha256.update(chunk)
        md5.update(chunk)
    return Content(size, sha256.hexdigest(), md5.digest())


def content_here(path: Path) -> Content | None:
    """Of a file, or of a link: what it points to; None if there is nothing."""
    if path.is_symlink():
        return content_of(io.BytesIO(os.fsencode(os.readlink(path))))
    try:
        with path.open("rb") as file:
            return content_of(file)
    except FileNotFoundError:
        return None


def properties(blob: BlobClient) -> BlobProperties | None:
    """What is there under this name; None if nothing.

    Raises:
        LinkDown: what answered is no storage: a captive portal has an answer to everything.
    """
    from azure.core.exceptions import ResourceNotFoundError

    try:
        found = blob.get_blob_properties()
    except ResourceNotFoundError as error:
        if missing(error):
            return None
        raise
    if not found.etag:
        raise LinkDown(f"{blob.primary_hostname}: something else than storage answers there, a portal maybe")
    return found


def digest_there(blob: BlobClient) -> str | None:
    """SHA-256 of what is there under this name, by its metadata or else its bytes; None if nothing is."""
    if not (found := properties(blob)):
        return None
    if noted := (found.metadata or {}).get(DIGEST):
        return str(noted)
    digest = hashlib.sha256()  # somebody put it there by other means
    for chunk in blob.download_blob().chunks():
        digest.update(chunk)
    return digest.hexdigest()


def is_folder(blob: BlobProperties) -> bool:
    """Whether a blob, listed with its metadata, stands for a folder: ADLS Gen2 lists its folders too."""
    return (blob.metadata or {}).get("hdi_isfolder") == "true"


def partial_name(blob: BlobProperties) -> str:
    """A file's name for what comes of a blob as it was listed; that of nothing else."""
    return hashlib.sha256(f"{blob.name}\0{blob.etag}".encode()).hexdigest()


def fetch(client: ContainerClient, blob: BlobProperties, partial: Path) -> str | None:
    """Bring a blob, as it was when it was listed, into a file; what an earlier call brought is kept.

    Args:
        blob: listed with its metadata.
        partial: for this blob as it was listed, and nothing else, see `partial_name`.

    Returns:
        Why what came is not what was put there: the file is removed then. None when it is whole, and durable.

    Raises:
        ResourceModifiedError: there is something else under this name by now.
    """
    from azure.core import MatchConditions

    source = client.get_blob_client(blob.name)
    with partial.open("ab") as file:
        for first in range(file.tell(), blob.size, BLOCK):
            part = source.download_blob(
                first,
                min(BLOCK, blob.size - first),
                etag=blob.etag,
                match_condition=MatchConditions.IfNotModified,
            )
            file.write(part.readall())
            file.flush()
        os.fsync(file.fileno())
    with partial.open("rb") as file:
        if holds(blob, content_of(file)):
            return None
    partial.unlink()
    return f"what came of {blob.name} is not what was put there, by its size or digest"


def holds(blob: BlobProperties, content: Content) -> bool:
    """Whether a blob, listed with its metadata, has this content, as far as it tells: by the digest that was
    put there with it, or else the MD5 that the account knows of what came in one request."""
    told, md5 = (blob.metadata or {}).get(DIGEST), blob.content_settings.content_md5
    return (
        content.size == blob.size
        and told in (None, content.sha256)
        and (not md5 or bytes(md5) == content.md5)
    )
