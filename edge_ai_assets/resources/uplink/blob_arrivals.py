"""Azure's end of the blob uplink: new packages from the container to the folder that the inbox reads, and
acknowledgements back.

What a package is worth is the inbox's judgement; here it only has to arrive whole.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from edge_ai_assets.delivery import durable
from edge_ai_assets.resources.storage import blob_content
from edge_ai_assets.resources.storage.account import Account
from edge_ai_assets.returns.package import packages
from edge_ai_assets.returns.road import acks
from edge_ai_assets.returns.road.roads import UplinkError

if TYPE_CHECKING:
    from azure.storage.blob import BlobProperties, ContainerClient


class Synced(msgspec.Struct, frozen=True):
    """What one call moved."""

    fetched: list[str]
    """`site/name` of the packages that came."""
    left: list[tuple[str, str]]
    """Blobs that were left where they are: `site/name`, and why."""
    acknowledged: list[str]
    """Sites whose acknowledgement was put up."""


def sync(
    account: Account, container: str, into: Path, *, limit: int = 1_000, max_bytes: int = packages.MAX_BYTES
) -> Synced:
    """Fetch packages that were not fetched before, at most `limit`; put up acknowledgements that changed.

    A package appears in `<into>/<site>/` whole, once: one that the inbox moved to quarantine does not come
    back. What a cut leaves of one is kept, and the next call goes on from there.

    Args:
        account: with the endpoint of its blobs.
        container: that the sites send to.
        into: the inbox's folder, made when missing.
        limit: most packages in one call.
        max_bytes: a larger one is left in the container.

    Raises:
        LinkDown: storage was out of reach; what came is kept.
        UplinkError: storage refuses.
    """
    client = account.container(container)
    fetched: list[str] = []
    left: list[tuple[str, str]] = []
    with durable.locked(into / ".sync.lock"), account.talking("fetching packages", UplinkError):
        for blob in client.list_blobs(include=["metadata"]):
            if len(fetched) == limit:
                break
            if not _is_package(blob.name) or _seen(into, blob.name):
                continue
            if blob.size > max_bytes:
                left.append((blob.name, f"it has {blob.size} bytes, the limit is {max_bytes}"))
            elif reason := _fetch(client, blob, into):
                left.append((blob.name, reason))
            else:
                fetched.append(blob.name)
        acknowledged = [site for site in _sites(into) if _put_up(client, into, site)]
    return Synced(fetched, left, acknowledged)


def waiting(account: Account, container: str, into: Path) -> list[str]:
    """`site/name` of the packages that `sync` would fetch; the container is listed, no more.

    Raises:
        LinkDown: storage was out of reach.
        UplinkError: storage refuses.
    """
    with account.talking("looking for packages", UplinkError):
        names = account.container(container).list_blob_names()
        return [name for name in names if _is_package(name) and not _seen(into, name)]


def _is_package(name: str) -> bool:
    site, _, file = name.partition("/")
    match = packages.NAME.fullmatch(file)
    return match is not None and match["site"] == site


def _seen(into: Path, name: str) -> bool:
    return (into / name).exists() or _mark(into, name).exists()


def _mark(into: Path, name: str) -> Path:
    site, _, file = name.partition("/")
    return into / site / ".fetched" / file


def _fetch(client: ContainerClient, blob: BlobProperties, into: Path) -> str | None:
    """Bring one package; why it was not taken, None when it was."""
    final, mark = into / blob.name, _mark(into, blob.name)
    partial = final.parent / ".arriving" / f"{final.name}.{str(blob.etag).strip(chr(34))}"
    for folder in (partial.parent, mark.parent):
        durable.make_folder(folder)
    if reason := blob_content.fetch(client, blob, partial):
        return f"{reason}; it is fetched again"
    with contextlib.suppress(FileExistsError):
        os.link(partial, final)
    durable.sync_folder(final.parent)
    mark.touch()
    partial.unlink()
    return None


def _sites(into: Path) -> list[str]:
    return sorted(path.parent.name for path in into.glob(f"*/{acks.NAME}"))


def _put_up(client: ContainerClient, into: Path, site: str) -> bool:
    """Put a site's acknowledgement where its uplink looks, if that has another; whether it had."""
    data = durable.read_bounded(into / site / acks.NAME, acks.MAX_BYTES)
    note = into / site / ".ack-put-up"
    if note.exists() and note.read_bytes() == data:
        return False
    client.get_blob_client(f"{site}/{acks.NAME}").upload_blob(data, overwrite=True)
    with durable.replacing(note) as file:
        file.write(data)
    return True
