"""A site's side: which releases it accepts, holds and unpacks.

Everything lies in one folder: `store/` (an OCI layout), `releases/<12 hex of the image digest>/model/`, and
`installed.json`, which says what counts as installed and how new it ever was. Which of the releases runs is
not known here: that is the supervisor's, in `scoring`.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Set
from pathlib import Path

import msgspec

from edge_ai_assets.delivery import durable, image, withdrawing
from edge_ai_assets.delivery import release as releases
from edge_ai_assets.delivery.errors import (
    ForeignError,
    MalformedError,
    MismatchError,
    RollbackError,
    TooLargeError,
    WithdrawnError,
)
from edge_ai_assets.delivery.layout import Layout
from edge_ai_assets.delivery.manifest import Descriptor, Digest, decode, encode, read_manifest
from edge_ai_assets.delivery.release import MAX_MODEL, Release, Statement
from edge_ai_assets.delivery.source import Source
from edge_ai_assets.delivery.trust import Trust, Trusted, believed, top_of

FORMAT = 1
MAX_INSTALLED = 16 << 20


class Installed(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """installed.json. Its replacement is the moment at which a release is installed, or pruned."""

    usecase: str
    newest: int
    """The newest version that ever was installed; it never falls."""
    releases: tuple[Release, ...]
    format: int = FORMAT


class SiteStore:
    """The releases of one site. One process works on it at a time, others wait."""

    def __init__(self, folder: Path, *, runs_images: bool = True) -> None:
        """`runs_images`: whether a container engine runs the releases; else only the models are kept."""
        self.folder = folder
        self.runs_images = runs_images
        self.layout = Layout(folder / "store")
        """Also what a bundle is imported into; `fetch` then takes the release from it."""
        self._unpacked = folder / "releases"
        self._record = folder / "installed.json"

    def fetch(
        self,
        source: Source,
        trust: Trust | Trusted,
        *,
        version: int | None = None,
        allow_rollback: bool = False,
    ) -> Release:
        """Install a release: verified, copied, unpacked.

        Trust metadata that comes with it is taken in together with it, and renews the lease.
        Doing it again is harmless, repairs what was damaged and goes on where it was cut off. `releases` does
        not show what is not wholly installed.

        Args:
            source: where releases come from; may be this store's own `layout`. A blob that was cut off goes
                on where it was.
            version: the newest that was not withdrawn when absent.
            allow_rollback: an operator wants an older release than one that was installed.

        Raises:
            MissingError: `source` has no such release.
            UntrustedError: it is not listed, or not signed by one of the keys.
            StaleError: the trust metadata in `source` has expired; that in this store does not expire.
            WithdrawnError: it was withdrawn, or each was; metadata that says so is taken in.
            RollbackError: it is older than the newest that was installed and not withdrawn, or its metadata
                is older.
            ForeignError: it is of another use case, another release under an installed version, or a
                container where none runs.
            DeliveryError: a digest, a size or a form does not check out. What was installed stays.
        """
        with durable.locked(self.folder / ".lock"), self.layout.writing():
            # The tag first, then the list: what was released in between is not asked for.
            top = source.resolve(releases.LATEST if version is None else f"release-{version}")
            accepted = None
            own = isinstance(source, Layout) and source.path == self.layout.path
            if isinstance(trust, Trust) and not own:
                accepted = trust.checked(source, top_of(source))
            keys = accepted.listed if accepted else believed(trust)
            try:
                statement = releases.read(source, top, keys)
                if version is None:
                    statement = withdrawing.instead(source, statement, keys)
                withdrawing.require(statement.release, keys)
            except WithdrawnError:
                if accepted:  # the site is to know, though there is nothing that it may have
                    with self.layout.editing() as tags:
                        accepted.take(self.layout, tags)
                raise
            release = statement.release
            if version not in (None, release.version):
                raise MismatchError(
                    f"release {version} refused: its statement says that it is {release.version}"
                )
            releases.require_model(release, self.runs_images)
            installed = self._installed()
            if installed:
                oldest = withdrawing.floor(release.usecase, installed.newest, keys)
                _admit(release, installed, oldest, allow_rollback)
            for part in self.needed(statement):
                if self.layout.intact(part):
                    continue
                if part.size > MAX_MODEL:
                    raise TooLargeError(
                        f"release {release.version} refused: a blob of {part.size} bytes, {MAX_MODEL} are "
                        "allowed"
                    )
                source.give(part, self.layout)
            releases.record(self.layout, statement, keys, accepted)
            self._unpack(release)
            self._write(_with(installed, release), installed)
            self.layout.forget_partial()  # of releases that were cut off, and are not wanted any more
        return release

    def needed(self, statement: Statement) -> list[Descriptor]:
        """The blobs of a release that this site has a use for."""
        return [part for part in statement.blobs if self.runs_images or part.digest not in statement.below]

    def inventory(self) -> frozenset[Digest]:
        """What may be left out of a bundle for this site: blobs that it has, or has no use for."""
        found = self.layout.blobs()
        if not self.runs_images:
            for name, top in self.layout.tags().items():
                if name.startswith("image-"):
                    found |= {layer.digest for layer in read_manifest(self.layout, top).layers[:-1]}
        return found

    def renew(self, source: Source, trust: Trust) -> None:
        """Take in newer trust metadata without a release; errors of `Trust.checked`."""
        with durable.locked(self.folder / ".lock"), self.layout.editing() as tags:
            trust.checked(source, top_of(source)).take(self.layout, tags)

    def path(self, release: Release) -> Path:
        """The folder with the files of an installed model (model.onnx, contract.json, …)."""
        return self._home(release) / "model"

    def releases(self) -> list[Release]:
        """The installed releases, oldest first."""
        installed = self._installed()
        return list(installed.releases) if installed else []

    def newest(self) -> int | None:
        """The newest version that ever was installed here; None before the first."""
        installed = self._installed()
        return installed.newest if installed else None

    def stamp(self) -> tuple[tuple[int, int], ...]:
        """What tells one state of it from another, without reading it: each is a file that was replaced."""
        found = []
        for path in (self._record, self.layout.path / "index.json"):
            if path.exists():
                stat = path.stat()
                found.append((stat.st_ino, stat.st_mtime_ns))
        return tuple(found)

    def prune(self, keep: int, also: Set[int]) -> list[Release]:
        """Remove all but the `keep` newest installed releases and the versions in `also` (those in use).

        Releases in `layout` that are not installed go too, unless they are newer than all installed.

        Returns:
            The releases that were removed, oldest first.

        Raises:
            ValueError: `keep` is below 1; the newest must stay, for the rule against rollback.
        """
        if keep < 1:
            raise ValueError(f"keep is {keep}, at least the newest release must be kept")
        with durable.locked(self.folder / ".lock"):
            installed = self._installed()
            if not installed:
                return []
            kept = tuple(
                r for r in installed.releases if r in installed.releases[-keep:] or r.version in also
            )
            self._write(msgspec.structs.replace(installed, releases=kept), installed)
            # From here on nothing that is removed is in use; a crash leaves rest that the next prune removes.
            homes = {self._home(release).name for release in kept}
            for folder in self._unpacked.iterdir():
                if folder.is_dir() and folder.name not in homes:
                    shutil.rmtree(folder)
            versions = {release.version for release in kept}
            with self.layout.editing() as tags:
                for version in releases.versions(tags):
                    if version not in versions and version <= installed.newest:
                        for name in [name for name in tags if name.endswith(f"-{version}")]:
                            del tags[name]
            self.layout.collect()
        return [release for release in installed.releases if release not in kept]

    def _home(self, release: Release) -> Path:
        return self._unpacked / release.image.removeprefix("sha256:")[:12]

    def _unpack(self, release: Release) -> None:
        if release.model is None:
            return
        home = self._home(release)
        if home.exists() and not image.matches(self.layout, release.image, home, max_bytes=MAX_MODEL):
            # Set aside by one rename, so that nobody ever finds it with only some of its files gone.
            damaged = home.with_name(f".{home.name}.damaged")
            shutil.rmtree(damaged, ignore_errors=True)
            os.replace(home, damaged)
            shutil.rmtree(damaged)
        image.unpack(self.layout, release.image, home, max_bytes=MAX_MODEL)

    def _installed(self) -> Installed | None:
        if not self._record.exists():
            return None
        data = durable.read_bounded(self._record, MAX_INSTALLED)
        installed = decode(data, Installed, str(self._record))
        if installed.format != FORMAT:
            raise MalformedError(f"{self._record} has format {installed.format}, this version reads {FORMAT}")
        return installed

    def _write(self, installed: Installed, before: Installed | None) -> None:
        if installed != before:
            with durable.replacing(self._record) as file:
                file.write(encode(installed))


def _admit(release: Release, installed: Installed, oldest: int, allow_rollback: bool) -> None:
    if release.usecase != installed.usecase:
        raise ForeignError(
            f"release {release.version} refused: it is of use case {release.usecase!r}, this site has "
            f"{installed.usecase!r} (another use case needs a folder of its own)"
        )
    for other in installed.releases:
        if other.version == release.version and other != release:
            raise ForeignError(
                f"release {release.version} refused: another release {release.version} is installed"
            )
    if release.version < oldest and not allow_rollback:
        raise RollbackError(
            f"release {release.version} refused: it is older than the installed release {oldest} "
            "(an operator may allow it)"
        )


def _with(installed: Installed | None, release: Release) -> Installed:
    if installed is None:
        return Installed(release.usecase, release.version, (release,))
    others = tuple(other for other in installed.releases if other.version != release.version)
    ordered = tuple(sorted((*others, release), key=lambda item: item.version))
    return msgspec.structs.replace(installed, newest=max(installed.newest, release.version), releases=ordered)
