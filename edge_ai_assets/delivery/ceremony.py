"""What people do with keys: make them, replace them, take them back, look at them.

The first root metadata lies in `keys/root.json`, the newest in the registry, where sites find it. Private
root keys need not be on this machine but for these steps. What the steps mean is `roots`'.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge_ai_assets.delivery import durable, metadata, roots, signing
from edge_ai_assets.delivery.authority import LEASE, Authority
from edge_ai_assets.delivery.errors import KeyFileError, MissingError
from edge_ai_assets.delivery.keyring import Keyring, add_vault_key
from edge_ai_assets.delivery.layout import Layout

if TYPE_CHECKING:
    from tuf.api.metadata import Root

ONLINE = "release"
"""The key of the roles snapshot and timestamp, and of targets unless others are named; it also signs
acknowledgements."""
ROOT = "root"
FILE = "root.json"
MAX_ROOT = 1 << 20


@dataclass(frozen=True)
class Roles:
    """Who is to sign, in a setup that is more than a demo.

    Attributes:
        root: folders that get one root key each, to be carried away; in `keys/` itself when empty.
        root_threshold: so many root keys must sign.
        targets: names of keys that list releases; the online key when empty. Made if they are not there.
        targets_threshold: so many of them must sign.
        vault: those of `targets` that are in an Azure Key Vault: address and public half (PEM), by name.
    """

    root: Sequence[Path] = ()
    root_threshold: int = 1
    targets: Sequence[str] = ()
    targets_threshold: int = 1
    vault: Mapping[str, tuple[str, str]] | None = None


def make(keys: Path, roles: Roles | None = None) -> bytes:
    """Make the keys of all roles that are not there yet, and the first root metadata.

    Killed anywhere, the next call goes on: root.json comes last.

    Raises:
        KeyFileError: there is root metadata already, or a threshold that cannot be met.
    """
    roles = roles or Roles()
    if (keys / FILE).exists():
        raise KeyFileError(f"{keys / FILE} is there already: rotate its keys, or begin with an empty folder")
    for name, (vault, public) in (roles.vault or {}).items():
        add_vault_key(keys, name, vault, public)
    for name in {ONLINE, *roles.targets} - set(roles.vault or {}):
        _ensure(keys, name)
    places = [(folder, f"{ROOT}-{number}") for number, folder in enumerate(roles.root, 1)] or [(keys, ROOT)]
    for folder, name in places:
        _ensure(folder, name)
    ring = Keyring([keys, *roles.root])
    known = ring.keys()
    online = [known[ONLINE]]
    targets = [known[name] for name in roles.targets] or online
    named = {
        "root": [known[name] for _, name in places],
        "targets": targets,
        "snapshot": online,
        "timestamp": online,
    }
    root = roots.first(named, {"root": roles.root_threshold, "targets": roles.targets_threshold}, ring)
    with durable.locked(keys / ".lock"), durable.replacing(keys / FILE) as file:
        file.write(root)
    return root


def authority(keys: Path, lease: timedelta = LEASE, bring: Sequence[Path] = ()) -> Authority:
    """Who signs for the registry of the home with these keys; they are made when there are none.

    Args:
        bring: folders with further private keys.
    """
    if not (keys / FILE).exists():
        make(keys)
    return Authority(first_root(keys), Keyring([keys, *bring]), lease)


def first_root(keys: Path) -> bytes:
    """The first root metadata; MissingError when no keys were made."""
    if not (keys / FILE).exists():
        raise MissingError(f"{keys / FILE} is not there: the first release makes it, or `edge-ai keys make`")
    return durable.read_bounded(keys / FILE, MAX_ROOT)


def rotate(
    keys: Path, registry: Path, role: str, old: str, new: str, bring: Sequence[Path] = ()
) -> dict[str, Any]:
    """Give a key's place in a role to another, which is made if it is not there; what `listed` says then.

    The online key has one file, `release.pem`: it is given up, under another name, for a new one.

    Args:
        old: the name of the key, or the beginning of its id.
        new: the name of the other. A root key is made in the last folder of `bring`, the rest in `keys`.
        bring: folders that hold the root keys.
    """
    home = bring[-1] if role == "root" and bring else keys
    _ensure(home, new)
    key = Keyring([keys, *bring]).keys()[new]
    return _follow(keys, registry, roots.replaced(role, old, key), bring)


def revoke(keys: Path, registry: Path, role: str, old: str, bring: Sequence[Path] = ()) -> dict[str, Any]:
    """Take a key out of a role; what `listed` says then. Those left must still be enough."""
    return _follow(keys, registry, roots.revoked(role, old), bring)


def listed(keys: Path, registry: Path) -> dict[str, Any]:
    """Version, end, and keys of each role, and which of their private halves are here."""
    signer = Authority(first_root(keys), Keyring([keys]))
    found = roots.described(signer.latest_root(Layout(registry)))
    here = {key.keyid for key in signer.keys.keys().values()}
    for role in found["roles"].values():
        for key in role["keys"]:
            key["here"] = key["id"] in here
    return found


def _follow(
    keys: Path, registry: Path, change: Callable[[Root], None], bring: Sequence[Path]
) -> dict[str, Any]:
    signer, layout = authority(keys, bring=bring), Layout(registry)
    with layout.editing() as tags:
        root = roots.following(signer.latest_root(layout), change, signer.keys)
        tags[metadata.TAG] = signer.rooted(layout, tags, root)
    return listed(keys, registry)


def _ensure(folder: Path, name: str) -> None:
    if not (folder / f"{name}.pem").exists() and not (folder / f"{name}.vault.json").exists():
        signing.create(folder, name)
