"""A folder and its far end in a container of a storage account: pushing what is new, pulling what is there.

What is immutable is created once; if the container holds something else under the name, somebody else writes
there, and both keep what they have. What names the newest is replaced, last of all. Which is which, and in
which order, is decided in `mirrored`. What is gone here stays there. ADLS Gen2 is reached by the endpoint of
its blobs. `dagster_azure.AzureBlobStorageResource` is not built on: it has no time-outs and no API version,
and what it has, an address and a credential, an `Account` takes as they are.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, TypeVar

from edge_ai_assets.delivery import durable
from edge_ai_assets.home import point
from edge_ai_assets.resources.calling.patience import Patience, Unavailable
from edge_ai_assets.resources.mirror import mirrored
from edge_ai_assets.resources.mirror.mirrored import File, Kind, Kinds
from edge_ai_assets.resources.mirror.moving import Moved, moved
from edge_ai_assets.resources.storage import blob_content, blob_names, blob_put
from edge_ai_assets.resources.storage.account import Account, Busy
from edge_ai_assets.resources.storage.noted import Noted
from edge_ai_assets.returns.road.link import LinkDown

if TYPE_CHECKING:
    from azure.storage.blob import BlobProperties

T = TypeVar("T")
PATIENCE = Patience(seconds=30.0, first=1.0, most=10.0)
"""With an account that is too busy; with one that is out of reach there is none."""
LINK = "link"
"""The metadata of a blob that stands for a link: it holds what the link points to."""
LONGEST = 4096  # bytes of a path


class MirrorError(RuntimeError):
    """Trying again does not help: somebody must do what the message says."""


class BlobMirror:
    """See the module.

    Args:
        account: with the endpoint of its blobs.
        container: its name; it must exist.
        folder: that the names of the blobs are relative to.
        notes: a folder for what is known of the container, and for what is on its way here. Notes keep what
            is there from being asked for; without them all is compared anew.
        kinds: what a name is.
        cache: the `Cache-Control` with which the files are handed out.
        patience: with an account that is too busy.
    """

    def __init__(
        self,
        account: Account,
        container: str,
        folder: Path,
        notes: Path,
        *,
        kinds: Kinds = mirrored.of_lake,
        cache: str | None = None,
        patience: Patience = PATIENCE,
    ) -> None:
        self._account, self._folder, self._notes = account, folder, notes
        self._kinds, self._cache, self._patience = kinds, cache, patience
        self._client = account.container(container)

    @property
    def _arriving(self) -> Path:
        return self._notes / "arriving"

    @property
    def url(self) -> str:
        return f"{self._account.endpoint.rstrip('/')}/{self._client.container_name}"

    def push(self, below: Path) -> Moved:
        """Bring what is new at and below a path to the container; see `mirrored.listed` for what that is.

        Cut or killed anywhere, what is there is in order, and the next call goes on; blocks of large files
        that came are not sent again.

        Raises:
            LinkDown: the account is out of reach, or stays busy.
            MirrorError: it refuses, or holds something else under a name that has one content for ever.
        """
        with self._at_hand() as noted:
            try:
                files = mirrored.listed(self._folder, below, self._kinds)
            except ValueError as error:
                raise MirrorError(str(error)) from error
            new = [file for file in files if not _unchanged(file, noted)]
            return moved([(file, partial(self._send, file, noted)) for file in new])

    def pull(self, *tops: str) -> Moved:
        """Bring what the container holds in some top folders here, each file checked by its digest.

        For a folder that holds nothing yet, or what an earlier call brought before it was cut.

        Raises:
            LinkDown: the account is out of reach, or stays busy.
            MirrorError: it refuses, or another content is here under a name.
        """
        found: list[File] = []
        blobs: dict[str, BlobProperties] = {}
        left: list[tuple[str, str]] = []
        for blob in self._talking(f"listing {self.url}", lambda: self._list(tops)):
            link = LINK in (blob.metadata or {})
            kind = Kind.POINTER if link else self._kinds(blob.name)
            reason = blob_names.refused(blob.name)
            if link and blob.size > LONGEST:
                reason = f"it stands for a link and has {blob.size} bytes, which no path has"
            if reason:
                left.append((blob.name, reason))
            elif kind is not None:
                found.append(File(self._folder / blob.name, blob.name, kind, blob.size, 0, link=link))
                blobs[blob.name] = blob
        files = sorted(mirrored.without_gaps(found), key=mirrored.order)
        with self._at_hand() as noted:
            came = moved([(file, partial(self._fetch, file, blobs[file.name], noted)) for file in files])
            shutil.rmtree(self._arriving, ignore_errors=True)  # what came of blobs that were replaced since
        return replace(came, left=tuple(left))

    @contextmanager
    def _at_hand(self) -> Iterator[Noted]:
        """The notes, for one at a time: of two that have listed the folder, the one that sends later may have
        seen the older pointers."""
        with durable.locked(self._notes / "lock"), Noted(self._notes / "notes.db", self.url) as noted:
            yield noted

    def _send(self, file: File, noted: Noted) -> bool:
        """Send a file unless it is there; whether it was sent."""
        sent = False
        try:
            with file.open() as opened:
                content = blob_content.content_of(opened)
                if not (noted.get(file.name) or "").endswith(f" {content.sha256}"):
                    sent = self._talking(f"sending {file.name}", lambda: self._put(file, opened, content))
        except FileNotFoundError:
            raise LinkDown(
                f"{file.path} is gone since it was listed; the next push sends what is there"
            ) from None
        noted.put(file.name, f"{file.size} {file.changed} {content.sha256}")
        return sent

    def _put(self, file: File, opened: BinaryIO, content: blob_content.Content) -> bool:
        blob, once = self._client.get_blob_client(file.name), file.kind.once
        # Of a large file it is asked first whether it is there: notes may be lost.
        there = blob_content.digest_there(blob) if content.size > blob_put.WHOLE else None
        if there == content.sha256:
            return False
        made = not (once and there) and blob_put.put(
            blob,
            opened,
            content,
            once=once,
            metadata={LINK: "1"} if file.link else {},
            cache=self._cache,
            read_seconds=self._account.read_seconds,
        )
        if not made and (there := there or blob_content.digest_there(blob)) != content.sha256:
            raise MirrorError(_other_writer(f"{self.url}/{file.name}", there, file, content))
        return made

    def _list(self, tops: Sequence[str]) -> list[BlobProperties]:
        return [
            blob
            for top in tops
            for blob in self._client.list_blobs(f"{top}/", include=["metadata"])
            if not blob_content.is_folder(blob)
        ]

    def _fetch(self, file: File, blob: BlobProperties, noted: Noted) -> bool:
        """Fetch a file unless it is here; whether it came."""
        try:
            return self._fetched(file, blob, noted)
        except (IsADirectoryError, NotADirectoryError, FileExistsError) as error:
            raise MirrorError(
                f"{self.url}/{file.name} is a folder here, or goes through a file: {error}"
            ) from None

    def _fetched(self, file: File, blob: BlobProperties, noted: Noted) -> bool:
        here = blob_content.content_here(file.path)
        if here and not blob_content.holds(blob, here):
            raise MirrorError(
                f"{file.path} is here and is not what {self.url}/{file.name} is: pull into an empty home, or "
                "move the file away"
            )
        came = here is None
        if here is None:
            fresh = self._arriving / blob_content.partial_name(blob)
            durable.make_folder(fresh.parent)
            self._talking(f"fetching {file.name}", lambda: self._bring(blob, fresh))
            here = blob_content.content_here(fresh)
            durable.make_folder(file.path.parent)
            if file.link:
                self._point(file.path, fresh)
            else:
                os.replace(fresh, file.path)
            durable.sync_folder(file.path.parent)
        assert here is not None
        noted.put(file.name, f"{here.size} {file.path.lstat().st_mtime_ns} {here.sha256}")
        return came

    def _bring(self, blob: BlobProperties, fresh: Path) -> None:
        from azure.core.exceptions import ResourceModifiedError

        try:
            reason = blob_content.fetch(self._client, blob, fresh)
        except ResourceModifiedError:
            raise LinkDown(
                f"{blob.name} was replaced in {self.url} while it was fetched: pull again"
            ) from None
        if reason:
            raise MirrorError(f"{self.url}: {reason}; it is fetched anew by the next pull")

    def _point(self, link: Path, fresh: Path) -> None:
        target = os.fsdecode(fresh.read_bytes())
        place = (link.parent / target).resolve()
        fresh.unlink()
        if not place.is_relative_to(self._folder.resolve()):
            raise MirrorError(
                f"{self.url}: {link.name} points to {target!r}, which is not below {self._folder}"
            )
        point(link, place)

    def _talking(self, doing: str, act: Callable[[], T]) -> T:
        """Do it, and again for a while if the account asks to be left alone: it does so under load."""

        def attempt() -> T:
            try:
                with self._account.talking(doing, MirrorError):
                    return act()
            except Busy as busy:
                raise Unavailable(str(busy), wait=busy.after) from None

        try:
            return self._patience.persist(attempt)
        except Unavailable as outage:
            raise LinkDown(str(outage)) from None


def _unchanged(file: File, noted: Noted) -> bool:
    return (noted.get(file.name) or "").startswith(f"{file.size} {file.changed} ")


def _other_writer(where: str, there: str | None, file: File, content: blob_content.Content) -> str:
    who = "has put this version into the table" if file.kind is Kind.LOG else "is there"
    return (
        f"{where} is {str(there)[:12]}, {file.path} is {content.sha256[:12]}, neither was touched: another "
        f"writer {who}. Give each home a container of its own, or begin with a home pulled from this one"
    )
