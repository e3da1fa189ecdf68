"""Secrets, fetched where settings say they are, when they are used. Nothing keeps or shows them."""

from __future__ import annotations

import os
from pathlib import Path

from edge_ai_assets.profile_values import Secret

MAX_BYTES = 64 * 1024


class SecretError(RuntimeError):
    """A secret cannot be fetched; the message names where it was to be, and never what it is."""


def reveal(secret: Secret) -> str:
    """The secret itself. A caller hands it to a client at once, and to nothing else.

    Raises:
        SecretError: it is not there, is empty, or the vault does not give it.
    """
    if secret.env is not None:
        found = os.environ.get(secret.env, "")
        said = f"the environment variable {secret.env}, which is to hold a secret, is not set: set it"
    elif secret.file is not None:
        found = _of_file(Path(secret.file))
        said = f"the file {secret.file}, which is to hold a secret, is empty: mount the right one"
    else:
        assert secret.vault is not None
        found = _of_vault(secret.vault)
        said = f"the secret {secret.vault} is empty: give it a value"
    if not found:
        raise SecretError(said)
    return found


def _of_file(path: Path) -> str:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
        text = data.decode()
    except OSError as error:
        raise SecretError(
            f"the file {path}, which is to hold a secret, cannot be read: {error.strerror}"
        ) from error
    except UnicodeDecodeError:
        raise SecretError(f"the file {path}, which is to hold a secret, is no UTF-8 text") from None
    if len(data) > MAX_BYTES:
        raise SecretError(f"the file {path} has more than {MAX_BYTES} bytes: it is no secret of ours")
    return text.removesuffix("\n").removesuffix("\r")


def _of_vault(address: str) -> str:
    """As the machine's own identity: a vault that needed a secret first would only move the question."""
    from azure.core.exceptions import AzureError
    from azure.keyvault.secrets import KeyVaultSecretIdentifier, SecretClient

    from edge_ai_assets.profile_values import Entra
    from edge_ai_assets.resources.identity.credentials import OPTIONS, entra

    where = KeyVaultSecretIdentifier(address)
    try:
        with SecretClient(where.vault_url, entra(Entra()), **OPTIONS) as client:
            return client.get_secret(where.name, where.version).value or ""
    except AzureError as error:
        status = getattr(error, "status_code", None) or type(error).__name__
        raise SecretError(
            f"the secret {address} cannot be fetched ({status}): check its name, and that this machine's "
            "identity may read secrets there"
        ) from None
