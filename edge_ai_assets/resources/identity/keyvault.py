"""Keys in Azure Key Vault that sign trust metadata: the private half never leaves the vault.

What is signed is `delivery.authority`'s. A vault signs a digest with an elliptic curve P-256 key (ES256); its
signature is the two numbers side by side, and TUF wants them as DER. It does not sign with Ed25519.
Source: https://learn.microsoft.com/azure/key-vault/keys/about-keys-details; RFC 7518, 3.4.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any, Protocol

from edge_ai_assets.delivery.errors import KeyFileError

if TYPE_CHECKING:
    from securesystemslib.signer import Key, Signer

SCHEME, ALGORITHM = "ecdsa-sha2-nistp256", "ES256"
"""What TUF calls it, and what a vault does."""


class Vault(Protocol):
    """What is used of `azure.keyvault.keys.crypto.CryptographyClient`."""

    def sign(self, algorithm: Any, digest: bytes) -> Any:
        """An answer whose `signature` is bytes."""


def signer(address: str, key: Key, vault: Vault | None = None) -> Signer:
    """What signs as a key in a vault.

    Args:
        address: of the key with its version, https://VAULT.vault.azure.net/keys/NAME/VERSION.
        key: its public half.
        vault: the client; one with the credentials of this machine when absent.

    Raises:
        KeyFileError: the key is of a kind that no vault signs with.
    """
    from securesystemslib.signer import SecretsHandler, Signature, Signer

    if key.scheme != SCHEME:
        raise KeyFileError(f"{address}: its scheme is {key.scheme!r}, a vault's key must be {SCHEME!r}")
    client = vault or _client(address)

    class VaultSigner(Signer):
        @property
        def public_key(self) -> Key:
            return key

        @classmethod
        def from_priv_key_uri(
            cls, priv_key_uri: str, public_key: Key, secrets_handler: SecretsHandler | None = None
        ) -> Signer:
            return signer(priv_key_uri, public_key)

        def sign(self, payload: bytes) -> Signature:
            return Signature(key.keyid, _signed(client, payload).hex())

    return VaultSigner()


def public_pem(address: str) -> str:
    """The public half of a vault's key, as PEM. KeyFileError when it is no P-256 key."""
    from azure.identity import DefaultAzureCredential
    from azure.keyvault.keys import KeyClient, KeyVaultKeyIdentifier

    where = KeyVaultKeyIdentifier(address)
    with KeyClient(where.vault_url, DefaultAzureCredential()) as client:
        found: Any = client.get_key(where.name, where.version).key
    return pem_of(address, str(found.crv), found.x or b"", found.y or b"")


def pem_of(address: str, curve: str, x: bytes, y: bytes) -> str:
    """The PEM of a key as a vault describes it; KeyFileError for another curve than P-256."""
    from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePublicNumbers
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    if curve.rpartition(".")[2] not in ("P-256", "p_256"):
        raise KeyFileError(f"{address}: the key is of curve {curve}, it must be P-256")
    numbers = EllipticCurvePublicNumbers(int.from_bytes(x, "big"), int.from_bytes(y, "big"), SECP256R1())
    return numbers.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


def _signed(client: Vault, payload: bytes) -> bytes:
    from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

    signature = bytes(client.sign(ALGORITHM, hashlib.sha256(payload).digest()).signature)
    if len(signature) != 64:
        raise KeyFileError(f"the vault answered with a signature of {len(signature)} bytes, it must be 64")
    return encode_dss_signature(int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big"))


def _client(address: str) -> Vault:
    from azure.identity import DefaultAzureCredential
    from azure.keyvault.keys.crypto import CryptographyClient

    return CryptographyClient(address, DefaultAzureCredential())
