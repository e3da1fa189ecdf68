"""Who we are to a registry: nobody, a user with a password or a token, an identity of Entra ID.

How a registry asks, and what it is told, is `distribution`'s. No secret is in an error or a representation.
Source: Distribution's token authentication; Azure Container Registry, "AAD-OAuth".
"""

from __future__ import annotations

import base64
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from edge_ai_assets.delivery.errors import DeniedError, UnreachableError

if TYPE_CHECKING:
    from azure.core.credentials import TokenCredential

    from edge_ai_assets.delivery.distribution import Repository

ENTRA = "https://containerregistry.azure.net/.default"


@dataclass(frozen=True)
class Challenge:
    """What a registry that answers 401 asks for."""

    scheme: str
    realm: str
    service: str
    scope: str


class Credential(Protocol):
    """Who we are to a registry."""

    def authorization(self, asked: Challenge, to: Repository) -> str:
        """The value of the header `Authorization`; DeniedError when there is none that would do."""
        ...


@dataclass(frozen=True)
class Password:
    """A user with a password, or with a token that a registry takes as one."""

    user: str
    password: str = field(repr=False)

    def authorization(self, asked: Challenge, to: Repository) -> str:
        pair = base64.b64encode(f"{self.user}:{self.password}".encode()).decode()
        return f"Basic {pair}" if asked.scheme == "basic" else to.token(asked, self)


class Anonymous:
    """Nobody: for a registry that gives to everybody."""

    def authorization(self, asked: Challenge, to: Repository) -> str:
        if asked.scheme == "basic":
            raise DeniedError(f"{to.name} wants a user and a password: set them in [registry]")
        return to.token(asked, None)


@dataclass(frozen=True)
class Entra:
    """An identity of Entra ID, to an Azure Container Registry: its token is exchanged there for one of the
    registry's own."""

    credential: TokenCredential = field(repr=False)

    def authorization(self, asked: Challenge, to: Repository) -> str:
        from azure.core.exceptions import AzureError, ClientAuthenticationError

        try:
            own = self.credential.get_token(ENTRA).token
        except AzureError as error:
            kind = DeniedError if isinstance(error, ClientAuthenticationError) else UnreachableError
            said = str(error).partition("\n")[0]
            raise kind(f"{to.name}: Entra ID gives no token for it: {said}") from None
        exchange = {"grant_type": "access_token", "service": asked.service, "access_token": own}
        refresh = to.answered("oauth2/exchange", exchange, "refresh_token")
        wanted = {"grant_type": "refresh_token", "service": asked.service, "scope": asked.scope}
        return f"Bearer {to.answered('oauth2/token', {**wanted, 'refresh_token': refresh}, 'access_token')}"
