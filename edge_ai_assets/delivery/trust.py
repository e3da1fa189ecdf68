"""What a site trusts releases by: root metadata that it was given once, and what it has accepted since.

`checked` takes in newer metadata, by python-tuf's client workflow: it refuses tampering, rollback, freeze and
what does not belong together. `held` is what was accepted last, however old: a site past its lease still
knows its releases. State is the tag `trust` of the site's own layout, so that it changes together with the
releases. No network: documents are read from blobs, wherever these lie. Signing them is `authority`'s.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from edge_ai_assets.delivery import metadata
from edge_ai_assets.delivery.errors import (
    DeliveryError,
    MalformedError,
    MismatchError,
    MissingError,
    RollbackError,
    StaleError,
    UntrustedError,
)
from edge_ai_assets.delivery.layout import Layout
from edge_ai_assets.delivery.listing import Listed, Withdrawal, path_of, version_of
from edge_ai_assets.delivery.manifest import Blobs, Descriptor
from edge_ai_assets.delivery.signed import Lease, latest_root, lease_of, listed, newest_root, online, parsed
from edge_ai_assets.delivery.source import Source

if TYPE_CHECKING:
    from tuf.ngclient import FetcherInterface

_URL = "blobs:/"


@dataclass(frozen=True)
class Accepted:
    """Metadata that was checked and may be kept."""

    documents: metadata.Documents
    listed: Listed
    after: Descriptor | None
    """What it was checked against; None when there was nothing yet."""

    def keep(self, layout: Layout) -> Descriptor:
        """Put the documents into a layout; what is returned is to be tagged `metadata.TAG`."""
        return metadata.put(layout, self.documents.files)

    def take(self, layout: Layout, tags: dict[str, Descriptor]) -> None:
        """Let it take the place of what `layout` had, of which these are the tags.

        Raises:
            MismatchError: that is not what it was checked against any more.
        """
        if tags.get(metadata.TAG) != self.after:
            raise MismatchError("the trust metadata is refused: another was taken in meanwhile; try again")
        tags[metadata.TAG] = self.keep(layout)


Trusted = Listed | Sequence[Ed25519PublicKey]
"""By what a statement is believed: a list that was verified, or, at a site that has no root metadata, the
keys one of which must have signed it."""


@dataclass(frozen=True)
class Trust:
    """What a site trusts.

    Attributes:
        root: the root metadata that it was given, some version of it.
        layout: its own; holds what was accepted since under `metadata.TAG`.
    """

    root: bytes
    layout: Layout

    def held(self) -> Listed:
        """What was accepted last, as it is on disk and whatever the clock says; empty before the first.

        Raises:
            UntrustedError: what is on disk is not signed as `root` and its successors demand.
            MalformedError: it is damaged.
        """
        documents = self._documents(self.layout.tags().get(metadata.TAG))
        if not documents.files:
            return Listed({}, online(newest_root(self.root, documents)))
        return listed(self.root, documents)

    def latest(self) -> bytes:
        """The newest root metadata that was accepted."""
        return latest_root(self.root, self._documents(self.layout.tags().get(metadata.TAG)))

    def lease(self) -> Lease | None:
        """The lease of what was accepted last; None before the first."""
        documents = self._documents(self.layout.tags().get(metadata.TAG))
        return lease_of(documents) if documents.files else None

    def checked(self, source: Blobs, top: Descriptor) -> Accepted:
        """Take newer metadata in, and check it against what was accepted before. Nothing is written.

        Args:
            source: where the documents lie.
            top: the manifest that leads to them, in `source`.

        Raises:
            StaleError: it has expired, by this machine's clock.
            RollbackError: a part of it is older than one that was accepted.
            MismatchError: its parts do not belong together.
            UntrustedError: too few valid signatures.
            MalformedError, MissingError, TooLargeError: it cannot be read.
        """
        from tuf.api import exceptions
        from tuf.ngclient import Updater, UpdaterConfig

        offered, before = metadata.read(source, top), self.layout.tags().get(metadata.TAG)
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            _lay(self._documents(before), folder)
            config = UpdaterConfig(
                max_root_rotations=metadata.MAX_ROOTS,
                root_max_length=metadata.MAX_SIZE,
                snapshot_max_length=metadata.MAX_SIZE,
                targets_max_length=metadata.MAX_SIZE,
            )
            try:
                Updater(name, _URL, fetcher=_fetcher(offered), config=config, bootstrap=self.root).refresh()
            except exceptions.ExpiredMetadataError as error:
                raise StaleError(_expired(offered, error)) from error
            except exceptions.BadVersionNumberError as error:
                raise RollbackError(
                    f"the trust metadata is refused, it is older than what is here ({error}): a newer bundle "
                    "is needed, or a registry that is up to date"
                ) from error
            except exceptions.LengthOrHashMismatchError as error:
                raise MismatchError(
                    f"the trust metadata is refused, its parts are not of one time: {error}"
                ) from error
            except exceptions.UnsignedMetadataError as error:
                raise UntrustedError(f"the trust metadata is refused: {error}") from error
            except (exceptions.RepositoryError, exceptions.DownloadError) as error:
                raise MalformedError(f"the trust metadata is refused: {error}") from error
            found = _gathered(folder)
        return Accepted(found, listed(self.root, found), before)

    def _documents(self, top: Descriptor | None) -> metadata.Documents:
        return metadata.read(self.layout, top) if top else metadata.Documents({})


def _expired(documents: metadata.Documents, error: Exception) -> str:
    """What to say of metadata that is too old, or seems to be."""
    now = datetime.now(UTC)
    try:
        lease = lease_of(documents)
        signed = f"signed {lease.issued:%Y-%m-%d}, good until {lease.until:%Y-%m-%d}"
    except DeliveryError:
        signed = str(error)
    return (
        f"the trust metadata has expired ({signed}); this machine's clock says {now:%Y-%m-%d %H:%M} UTC: "
        "bring a newer bundle, or set the clock if it is wrong"
    )


def _lay(documents: metadata.Documents, folder: Path) -> None:
    """Lay accepted documents where python-tuf looks for them."""
    history = folder / "root_history"
    history.mkdir()
    for name, data in documents.files.items():
        role = name.removesuffix(".json").rpartition(".")[2]
        (history / name if role == "root" else folder / f"{role}.json").write_bytes(data)


def _gathered(folder: Path) -> metadata.Documents:
    """What python-tuf left in its folder, each document verified."""
    files = {path.name: path.read_bytes() for path in (folder / "root_history").iterdir()}
    files["timestamp.json"] = (folder / "timestamp.json").read_bytes()
    for role in ("snapshot", "targets"):
        data = (folder / f"{role}.json").read_bytes()
        files[f"{parsed(data, role).signed.version}.{role}.json"] = data
    return metadata.Documents(files)


def _fetcher(documents: metadata.Documents) -> FetcherInterface:
    from tuf.api.exceptions import DownloadHTTPError
    from tuf.ngclient import FetcherInterface

    class Fetcher(FetcherInterface):
        def _fetch(self, url: str) -> Iterator[bytes]:
            name = url.removeprefix(_URL)
            if name not in documents.files:
                raise DownloadHTTPError(f"the trust metadata lacks {name}", 404)
            return iter([documents.files[name]])

    return Fetcher()


def top_of(source: Source) -> Descriptor:
    """Where a source's metadata begins; MissingError when it has none."""
    try:
        return source.resolve(metadata.TAG)
    except MissingError as error:
        raise MissingError(f"{error}: trust metadata is demanded here") from None


def believed(trust: Trust | Trusted) -> Trusted:
    """By what the releases in a party's own layout are believed."""
    return trust.held() if isinstance(trust, Trust) else trust


def withdrawal(trusted: Trusted, usecase: str, version: int) -> Withdrawal | None:
    """That a release was withdrawn; None of one that was not, and where nobody says so: by a key alone."""
    return trusted.withdrawn.get(path_of(usecase, version)) if isinstance(trusted, Listed) else None


def withdrawn(trusted: Trusted) -> dict[int, Withdrawal]:
    """All that were, by version: a list is of one use case."""
    said = trusted.withdrawn if isinstance(trusted, Listed) else {}
    return {number: each for path, each in said.items() if (number := version_of(path)) is not None}
