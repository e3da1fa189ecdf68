"""Keys that sign trust metadata: where their private halves are, and how python-tuf signs with them.

A folder holds `NAME.pem` (Ed25519, see `signing.create`), or `NAME.vault.json` for a key that never leaves an
Azure Key Vault. Which key has which role stands in the root metadata alone. The file of a vault's key holds
its address and public half, so that roles can be given to it without asking the vault.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from edge_ai_assets.delivery import durable, signing
from edge_ai_assets.delivery.errors import KeyFileError
from edge_ai_assets.delivery.manifest import decode

if TYPE_CHECKING:
    from securesystemslib.signer import Key, Signer

NAME = "x-edge-ai-name"
"""Field of a key in root metadata: what people call it."""
_VAULT = ".vault.json"


class VaultKey(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`NAME.vault.json`"""

    vault: str
    """Address of the key with its version, https://VAULT.vault.azure.net/keys/NAME/VERSION."""
    public: str
    """PEM."""


OpenVault = Callable[[str, "Key"], "Signer"]
"""A signer for a vault's key: its address and its public half."""


class Keyring:
    """The private keys in some folders.

    Args:
        folders: looked at in this order; one that is not there holds none.
        vault: opens keys that are in a vault; Azure's when absent.
    """

    def __init__(self, folders: Iterable[Path], vault: OpenVault | None = None) -> None:
        self._folders = tuple(folders)
        self._vault = vault

    def keys(self) -> dict[str, Key]:
        """Public halves by name, those in the first folders first."""
        found: dict[str, Key] = {}
        for path in self._files():
            found.setdefault(path.name.removesuffix(_VAULT).removesuffix(".pem"), _public(path))
        return found

    def signer(self, key: Key) -> Signer | None:
        """What signs as that key; None when its private half is not here."""
        from securesystemslib.signer import CryptoSigner

        for path in self._files():
            if _public(path).keyid != key.keyid:
                continue
            if path.name.endswith(_VAULT):
                return (self._vault or _azure)(_vault_key(path).vault, key)
            return CryptoSigner(signing.load_private(path))
        return None

    def _files(self) -> Iterator[Path]:
        for folder in self._folders:
            for path in sorted(folder.glob("*")):
                if path.name.endswith(_VAULT) or (
                    path.suffix == ".pem" and not path.name.endswith(".pub.pem")
                ):
                    yield path


def add_vault_key(folder: Path, name: str, vault: str, public_pem: str) -> Path:
    """Note a key that is in a vault; the path of the note. KeyFileError when there is a key of that name."""
    path = folder / f"{name}{_VAULT}"
    if path.exists() or (folder / f"{name}.pem").exists():
        raise KeyFileError(f"{folder} has a key {name!r} already; choose another name or move it away")
    with durable.locked(folder / ".lock"), durable.replacing(path) as file:
        file.write(msgspec.json.format(msgspec.json.encode(VaultKey(vault, public_pem)), indent=1))
    _public(path)
    return path


def _public(path: Path) -> Key:
    from cryptography.hazmat.primitives.serialization import load_pem_public_key
    from securesystemslib.signer import SSlibKey

    name = path.name.removesuffix(_VAULT).removesuffix(".pem")
    if path.name.endswith(_VAULT):
        try:
            found = SSlibKey.from_crypto(load_pem_public_key(_vault_key(path).public.encode()))
        except ValueError as error:
            raise KeyFileError(f"{path}: the public key in it cannot be used: {error}") from error
    else:
        found = SSlibKey.from_crypto(signing.load_private(path).public_key())
    found.unrecognized_fields[NAME] = name
    return found


def _vault_key(path: Path) -> VaultKey:
    return decode(durable.read_bounded(path, signing.MAX_KEY_FILE), VaultKey, str(path))


def _azure(vault: str, key: Key) -> Signer:
    from edge_ai_assets.resources.identity.keyvault import signer

    return signer(vault, key)
