"""Signing what is released: the metadata of a registry, as Azure's side writes it.

Roles: `root` says whose keys count, and its own keys can be kept away from any machine; `targets` lists the
releases; `snapshot` and `timestamp` say what is current, and for how long a site may rely on it: the trust
lease.
Source: TUF specification 1.0.33. Making and rotating root metadata is `roots`', checking all of it `trust`'s.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, cast

import msgspec

from edge_ai_assets.delivery import metadata
from edge_ai_assets.delivery.errors import ForeignError, KeyFileError, MissingError
from edge_ai_assets.delivery.keyring import NAME, Keyring
from edge_ai_assets.delivery.layout import Layout
from edge_ai_assets.delivery.listing import WITHDRAWN, Withdrawal
from edge_ai_assets.delivery.manifest import Descriptor
from edge_ai_assets.delivery.signed import ISSUED, latest_root, parsed, root_of

if TYPE_CHECKING:
    from securesystemslib.signer import Signer
    from tuf.api.metadata import Metadata, MetaFile, Root, Signed, Snapshot, Targets, Timestamp

LONG = timedelta(days=3650)
"""How long root and targets are good for: what ends a site's trust is the lease, not these."""
LEASE = timedelta(days=180)
RENEW = 10
"""Metadata is signed anew once a tenth of its lease is over."""
Tags = Mapping[str, Descriptor]


@dataclass(frozen=True)
class Authority:
    """Signs for a registry.

    Attributes:
        root: the first root metadata, by which the registry's own side trusts it.
        keys: the private keys of the roles.
        lease: how long a site that hears nothing may rely on what it has.
    """

    root: bytes
    keys: Keyring = field(repr=False)
    lease: timedelta = LEASE

    def listed(self, layout: Layout, tags: Tags, statements: Mapping[str, bytes]) -> Descriptor:
        """List releases beside those that are; the descriptor to tag `metadata.TAG`.

        Args:
            layout: gets the documents.
            tags: its tags, of which a lock keeps others away.
            statements: bytes by path, see `listing.path_of`.

        Raises:
            KeyFileError: too few private keys of a role are here.
            ForeignError: another statement is listed under one of the paths.
        """
        from tuf.api.metadata import TargetFile, Targets

        files = self._files(layout, tags)
        root, targets = self._root(files), cast("Targets | None", _signed(files, "targets"))
        targets = targets or Targets()
        for path, data in statements.items():
            file = TargetFile.from_data(path, data, ["sha256"])
            there = targets.targets.setdefault(path, file)  # with what else is said of it
            if (there.length, there.hashes) != (file.length, file.hashes):
                raise ForeignError(f"{path} is refused: another statement is listed as it")
        return self._published(layout, files, root, targets)

    def withdrawn(self, layout: Layout, tags: Tags, path: str, said: Withdrawal) -> Descriptor:
        """Say of a release that is listed that nobody may install it any more; the descriptor to tag.

        It stays listed: a version is never given twice, and who has it learns what became of it.

        Raises:
            KeyFileError: too few private keys of a role are here.
            MissingError: it is not listed.
        """
        files = self._files(layout, tags)
        root, targets = self._root(files), cast("Targets | None", _signed(files, "targets"))
        if targets is None or path not in targets.targets:
            raise MissingError(f"{path} is not listed: there is nothing to withdraw")
        more = targets.targets[path].unrecognized_fields
        more["custom"] = {**(more.get("custom") or {}), WITHDRAWN: msgspec.to_builtins(said)}
        return self._published(layout, files, root, targets)

    def current(self, layout: Layout, tags: Tags) -> Descriptor:
        """The metadata as it is, or signed anew when that is due; begun when there is none."""
        files = self._files(layout, tags)
        stamp = cast("Timestamp | None", _signed(files, "timestamp"))
        if stamp is None:
            return self.listed(layout, tags, {})
        issued = datetime.fromisoformat(str(stamp.unrecognized_fields[ISSUED]))
        lease = stamp.expires - issued
        if lease == self.lease and datetime.now(UTC) - issued < lease / RENEW:
            return tags[metadata.TAG]
        return self._stamped(layout, files, self._root(files))

    def rooted(self, layout: Layout, tags: Tags, root: bytes) -> Descriptor:
        """Follow a new root: each role is signed anew by the keys that it has now."""
        from tuf.api.metadata import Targets

        files = self._files(layout, tags)
        files[f"{root_of(root).signed.version}.root.json"] = root
        targets = cast("Targets | None", _signed(files, "targets")) or Targets()
        return self._published(layout, files, self._root(files), targets)

    def latest_root(self, layout: Layout) -> bytes:
        """The newest root metadata: what a site that comes to be now is given."""
        return latest_root(self.root, metadata.Documents(self._files(layout, layout.tags())))

    def _files(self, layout: Layout, tags: Tags) -> dict[str, bytes]:
        if metadata.TAG in tags:
            return dict(metadata.read(layout, tags[metadata.TAG]).files)
        return {f"{root_of(self.root).signed.version}.root.json": self.root}

    def _root(self, files: Mapping[str, bytes]) -> Root:
        return root_of(latest_root(self.root, metadata.Documents(files))).signed

    def _published(self, layout: Layout, files: dict[str, bytes], root: Root, targets: Targets) -> Descriptor:
        if any(name.endswith(".targets.json") for name in files):
            targets.version += 1
        targets.expires = _now() + LONG
        files = {name: data for name, data in files.items() if not name.endswith(".targets.json")}
        files[f"{targets.version}.targets.json"] = sign(targets, "targets", root, self.keys)
        return self._stamped(layout, files, root)

    def _stamped(self, layout: Layout, files: dict[str, bytes], root: Root) -> Descriptor:
        """Say that this is what is current, from now until the end of the lease."""
        from tuf.api.metadata import Snapshot, Timestamp

        now = _now()
        (name,) = (name for name in files if name.endswith(".targets.json"))
        before = cast("Snapshot | None", _signed(files, "snapshot"))
        stamp = cast("Timestamp | None", _signed(files, "timestamp"))
        snapshot = Snapshot(
            version=(before.version if before else 0) + 1,
            expires=now + self.lease,
            meta={"targets.json": _meta(int(name.split(".")[0]), files[name])},
        )
        data = sign(snapshot, "snapshot", root, self.keys)
        timestamp = Timestamp(
            version=(stamp.version if stamp else 0) + 1,
            expires=now + self.lease,
            snapshot_meta=_meta(snapshot.version, data),
            unrecognized_fields={ISSUED: now.isoformat()},
        )
        files = {name: kept for name, kept in files.items() if not name.endswith(".snapshot.json")}
        files[f"{snapshot.version}.snapshot.json"] = data
        files["timestamp.json"] = sign(timestamp, "timestamp", root, self.keys)
        return metadata.put(layout, files)


def sign(signed: Signed, role: str, root: Root, keys: Keyring) -> bytes:
    """A document with the signatures of all keys of the role whose private half is here.

    Raises:
        KeyFileError: they are fewer than the role demands.
    """
    from tuf.api.metadata import Metadata

    demanded = root.roles[role]
    known = [root.keys[keyid] for keyid in sorted(demanded.keyids)]
    signers = [signer for key in known if (signer := keys.signer(key))]
    if len(signers) < demanded.threshold:
        names = ", ".join(str(key.unrecognized_fields.get(NAME, key.keyid[:16])) for key in known)
        raise KeyFileError(
            f"{role} metadata needs {demanded.threshold} of the keys {names}; the private halves of "
            f"{len(signers)} are here: bring the folder that holds the others"
        )
    document: Metadata[Any] = Metadata(signed)
    for signer in signers:
        add_signature(document, signer)
    return document.to_bytes()


def add_signature(document: Metadata[Any], signer: Signer) -> None:
    """Sign a document, beside who did already. KeyFileError when the key, or its vault, does not."""
    from tuf.api.metadata import UnsignedMetadataError

    try:
        document.sign(signer, append=True)
    except UnsignedMetadataError as error:
        name = signer.public_key.unrecognized_fields.get(NAME, signer.public_key.keyid[:16])
        raise KeyFileError(f"key {name} does not sign: {error.__cause__ or error}") from error


def _now() -> datetime:
    return datetime.now(UTC).replace(microsecond=0)


def _meta(version: int, data: bytes) -> MetaFile:
    from tuf.api.metadata import MetaFile

    return MetaFile.from_data(version, data, ["sha256"])


def _signed(files: Mapping[str, bytes], role: str) -> Signed | None:
    """What the document of a role says; None when there is none."""
    if not any(name.endswith((f".{role}.json", f"{role}.json")) for name in files):
        return None
    return parsed(metadata.Documents(files).only(role), role).signed
