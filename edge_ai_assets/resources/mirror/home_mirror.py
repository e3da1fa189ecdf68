"""What Azure's side has made, mirrored to its storage account: the Dagster resource `mirror`.

An asset calls it once, after it has written here, and puts what it returns into its metadata:

    def candidate(..., mirror: dg.ResourceParam[HomeMirror]):
        ...
        metadata={..., **mirror.push(home.candidate)}

A link (`models/candidate`, `models/champion`) stands for the folder it points to, and for itself after that.
Nothing else in an asset depends on whether there is a storage account. How files travel is `blob_mirror`'s.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

from edge_ai_assets.home import Home
from edge_ai_assets.profiles import AzureProfile
from edge_ai_assets.resources import configured
from edge_ai_assets.resources.mirror import mirrored
from edge_ai_assets.resources.mirror.blob_mirror import BlobMirror, MirrorError
from edge_ai_assets.resources.mirror.moving import Moved
from edge_ai_assets.resources.storage.account import Account
from edge_ai_assets.resources.storage.noted import Noted
from edge_ai_assets.returns.road.link import LinkDown

log = logging.getLogger(__name__)

NOTES = ".mirror"
"""Folder of the home with what is known of the far end."""


@dataclass(frozen=True)
class HomeMirror:
    """The far end of a home: containers of one storage account, which exist.

    Args:
        home: its lake, models and report are mirrored.
        profile: of Azure's side; without storage nothing is done, and nothing said.
    """

    home: Home
    profile: AzureProfile = field(default_factory=AzureProfile)

    def push(self, *paths: Path) -> dict[str, Any]:
        """Bring what is new at and below these paths to the account; what it did, as Dagster metadata.

        An account that is out of reach is no error, since what was made is here: it is said, and the next
        push of any path, from this process or another, brings these too.

        Raises:
            MirrorError: trying again does not help; the message says what to do.
        """
        import dagster as dg

        if (account := configured.storage(self.profile)) is None:
            return {}
        own = [self._name(path) for path in paths]
        with Noted(self._notes / "owed.db", account.endpoint) as owed:
            for name in own:
                # Told apart from what another run owes of the same path, which may have written since.
                owed.put(name, str(uuid4()))
            done, behind = [], ""
            for name in sorted(owed.names(), key=own.__contains__, reverse=True):
                debt = owed.get(name) or ""
                try:
                    done.append(self._mirror(self.home.root / name, account).push(self.home.root / name))
                except LinkDown as error:
                    behind = str(error)
                    log.warning("%s is not mirrored yet: %s", name, error)
                    break
                except MirrorError:
                    owed.remove(name, debt)  # somebody must act, and then runs this asset again
                    raise
                owed.remove(name, debt)
        places = sorted({self._mirror(path, account).url for path in paths})
        return {
            "mirrored_files": sum(each.files for each in done),
            "mirrored_bytes": sum(each.bytes for each in done),
            "mirrored_to": dg.MetadataValue.url(places[0]) if len(places) == 1 else places,
            **({"mirror_behind": behind} if behind else {}),
        }

    def pull(self) -> Moved:
        """Bring lake and models from the account into a home that has none: after a disaster, or in a new
        machine. Cut or killed, the next call goes on.

        Raises:
            LinkDown: the account is out of reach.
            MirrorError: none is configured, or it refuses, or the home has other files than the account.
        """
        if (account := configured.storage(self.profile)) is None:
            raise MirrorError(
                f"no storage account is configured for {self.home.root}: write [storage] into its azure.toml"
            )
        first = self._mirror(self.home.lake, account).pull(*(path.name for path in self._lake))
        second = self._mirror(self.home.models, account).pull(self.home.models.name)
        return Moved(first.files + second.files, first.bytes + second.bytes, first.left + second.left)

    @property
    def paths(self) -> list[Path]:
        """All that has a far end."""
        return [*self._lake, self.home.candidate, self.home.champion, self.home.report]

    @property
    def _lake(self) -> list[Path]:
        return [self.home.raw_telemetry, self.home.quarantine, self.home.training_sets, self.home.tables]

    @property
    def _notes(self) -> Path:
        return self.home.root / NOTES

    def _name(self, path: Path) -> str:
        return path.relative_to(self.home.root).as_posix()

    def _mirror(self, path: Path, account: Account) -> BlobMirror:
        """The far end of a path in the home."""
        assert self.profile.storage is not None
        if path.is_relative_to(self.home.report):
            # A page is asked for anew each time, and sent only when it has changed.
            return BlobMirror(
                account,
                self.profile.storage.site,
                self.home.report,
                self._notes,
                kinds=mirrored.of_site,
                cache="no-cache",
            )
        inside = self.home.lake if path.is_relative_to(self.home.lake) else self.home.root
        return BlobMirror(account, self.profile.storage.lake, inside, self._notes)
