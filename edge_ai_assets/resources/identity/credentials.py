"""From the credentials in settings to what Azure's clients take. Secrets are fetched here, and go no further.

What a service makes of a credential is the business of the module that talks to it.
"""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

from edge_ai_assets.profile_values import AdFs, Credential, Entra, Secret, on_this_machine
from edge_ai_assets.profile_values import TokenCredential as OfTokens
from edge_ai_assets.resources.identity.secret import SecretError, reveal

if TYPE_CHECKING:
    from azure.core.credentials import AccessToken, TokenCredential

    from edge_ai_assets.resources.storage import account

OPTIONS: dict[str, Any] = {"connection_timeout": 5, "read_timeout": 10, "retry_total": 1}
"""Of whoever gives tokens or secrets: one that is out of reach holds nobody up for a minute."""


def credential(given: Credential, endpoint: str, ca: Path | None = None) -> account.Credential:
    """What a storage client takes.

    Args:
        endpoint: the account's; its name is the first word of the host, of any suffix, when the settings do
            not say it. An emulator's, on this machine, is the first word of the path.
        ca: certificates that are trusted instead of the system's.

    Raises:
        SecretError: its secret cannot be fetched.
    """
    from azure.core.credentials import AzureNamedKeyCredential, AzureSasCredential

    if given.key is not None:
        return AzureNamedKeyCredential(given.account or account_of(endpoint), reveal(given.key))
    if given.sas is not None:
        return AzureSasCredential(_signature(given.sas))
    return token(OfTokens(entra=given.entra, adfs=given.adfs), ca)


def token(given: OfTokens, ca: Path | None = None) -> TokenCredential:
    """What a client takes that asks with tokens.

    Raises:
        SecretError: its secret cannot be fetched.
    """
    if given.adfs is not None:
        return adfs(given.adfs, ca)
    assert given.entra is not None
    return entra(given.entra)


def _signature(given: Secret) -> str:
    found = reveal(given).lstrip("?")
    if "sig" not in parse_qs(found):
        # Of something else, clients would log parts as the names of parameters.
        raise SecretError(f"what {given} refers to is no shared access signature: it has no sig=")
    logging.getLogger("urllib3.connectionpool").addFilter(_without_signature)
    return found


def _without_signature(record: logging.LogRecord) -> bool:
    """Addresses as urllib3 logs them for debugging hold the signature: it is taken out."""
    if isinstance(record.args, tuple):
        record.args = tuple(
            re.sub(r"\bsig=[^&\s]*", "sig=REDACTED", each) if isinstance(each, str) else each
            for each in record.args
        )
    return True


def account_of(endpoint: str) -> str:
    """The account's name, as its address has it."""
    parts = urlsplit(endpoint)
    host = parts.hostname or ""
    return parts.path.strip("/").partition("/")[0] if on_this_machine(host) else host.partition(".")[0]


def entra(given: Entra) -> TokenCredential:
    """An application with a secret, or whatever identity this machine has."""
    from azure.identity import ClientSecretCredential, DefaultAzureCredential

    if given.secret is not None:
        assert given.tenant and given.client
        return ClientSecretCredential(given.tenant, given.client, reveal(given.secret), **OPTIONS)
    ours = {"managed_identity_client_id": given.client} if given.client else {}
    return DefaultAzureCredential(process_timeout=5, **ours, **OPTIONS)


def adfs(given: AdFs, ca: Path | None = None) -> TokenCredential:
    """An application of a hub's AD FS. Without discovery: that would ask a public login service."""
    from azure.identity import ClientSecretCredential

    trusted = {"connection_verify": str(ca)} if ca else {}
    ours = ClientSecretCredential(
        "adfs",
        given.client,
        reveal(given.secret),
        authority=given.authority,
        disable_instance_discovery=True,
        **OPTIONS,
        **trusted,
    )
    return _Audience(ours, given.audience) if given.audience else ours


class _Audience:
    """Tokens for what the hub calls a service: clients know the public cloud's names alone."""

    def __init__(self, inner: TokenCredential, audience: str) -> None:
        self._inner, self._scope = inner, f"{audience}/.default"

    def get_token(
        self, *scopes: str, claims: str | None = None, tenant_id: str | None = None, **options: Any
    ) -> AccessToken:
        # Neither claims nor a tenant: they come from challenges of the public cloud, AD FS knows neither.
        return self._inner.get_token(self._scope)
