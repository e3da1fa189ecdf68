"""What the fields of the profiles hold: addresses, names, references to secrets, credentials.

A secret itself is never here, only where it is: `resources.identity.secret` fetches it when it is used. Which
sections there are is `profiles`' matter.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from typing import Annotated, Any, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator


@dataclass(frozen=True)
class Kind:
    """What a field takes, as text for people: "must be …" in an error, a cell of the table in the docs."""

    text: str


class Part(BaseModel):
    """A table of a profile. What it does not know it refuses; no error shows what was given."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True, strict=False)


def on_this_machine(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _address(given: str) -> str:
    parts = urlsplit(given)
    host = parts.hostname or ""
    secure = parts.scheme == "https" or (parts.scheme == "http" and on_this_machine(host))
    # A signature in it would be shown wherever the address is.
    if not (host and secure) or re.search(r"[?#@\s]", given):
        raise ValueError("no address of this kind")
    _ = parts.port  # ValueError when it is none
    return given.rstrip("/")


def _vault(given: str) -> str:
    parts = urlsplit(_address(given)).path.split("/")
    if parts[:2] != ["", "secrets"] or not 3 <= len(parts) <= 4 or not all(parts[2:]):
        raise ValueError("no address of a secret")
    return given.rstrip("/")


Address = Annotated[
    str,
    AfterValidator(_address),
    Kind("an https address without user, query and fragment (http only to this machine)"),
]
Container = Annotated[
    str,
    Field(pattern=r"^(\$web|[a-z0-9](-?[a-z0-9])+)$", min_length=3, max_length=63),
    Kind("a container's name: 3 to 63 lower-case letters, digits and single hyphens"),
]
Guid = Annotated[
    str,
    Field(pattern=r"^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$"),
    Kind("an id of 32 hexadecimal digits, 8-4-4-4-12"),
]
Name = Annotated[str, Field(pattern=r"^\S(.{0,198}\S)?$"), Kind("a name of 1 to 200 characters")]
Tenant = Annotated[
    str,
    Field(pattern=r"^[A-Za-z0-9](-?[A-Za-z0-9.])*$", max_length=200),
    Kind("a directory's id or domain, such as contoso.onmicrosoft.com"),
]
Repository = Annotated[
    str,
    Field(pattern=r"^[A-Za-z0-9.\-]+(:[0-9]{1,5})?(/[a-z0-9]+([._\-]+[a-z0-9]+)*)+$", max_length=400),
    Kind("a repository with its registry, such as acct.azurecr.io/edge/pump-station"),
]
ApiVersion = Annotated[
    str,
    Field(pattern=r"^20[0-9]{2}-[0-9]{2}-[0-9]{2}$"),
    Kind("a version of the storage API, such as 2019-07-07"),
]


class Secret(Part):
    """Where a secret is: exactly one of the three."""

    env: (
        Annotated[
            str,
            Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$", max_length=200),
            Kind("an environment variable's name"),
        ]
        | None
    ) = Field(None, description="Environment variable that holds it.")
    file: Annotated[str, Field(pattern=r"^[^\x00]+$", max_length=4000), Kind("a file's path")] | None = Field(
        None, description="File that holds it, as secrets are mounted; its last line end is left out."
    )
    vault: (
        Annotated[
            str,
            AfterValidator(_vault),
            Kind("the address of a secret in a key vault, https://VAULT/secrets/NAME or …/NAME/VERSION"),
        ]
        | None
    ) = Field(None, description="Secret in a key vault, asked for as the machine's own identity.")

    @model_validator(mode="before")
    @classmethod
    def _no_secret_itself(cls, given: Any) -> Any:
        if isinstance(given, str):
            raise ValueError(A_REFERENCE)
        return given

    @model_validator(mode="after")
    def _one(self) -> Self:
        if sum(each is not None for each in (self.env, self.file, self.vault)) != 1:
            raise ValueError(A_REFERENCE)
        return self


A_REFERENCE = (
    'must say where the secret is, by exactly one of { env = "NAME" }, { file = "/run/secrets/NAME" } and '
    '{ vault = "https://VAULT/secrets/NAME" }'
)


class Entra(Part):
    """An identity in Microsoft Entra: "default" for what the machine has, or an application."""

    tenant: Tenant | None = Field(None, description="Directory of the application.")
    client: Guid | None = Field(
        None, description="The application; without a secret, the machine's identity of that client id."
    )
    secret: Secret | None = Field(None, description="The application's secret.")

    @model_validator(mode="before")
    @classmethod
    def _default(cls, given: Any) -> Any:
        if isinstance(given, str):
            if given != "default":
                raise ValueError(AN_IDENTITY)
            return {}
        return given

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if (self.tenant is None) != (self.secret is None) or (self.secret and not self.client):
            raise ValueError(AN_IDENTITY)
        return self


AN_IDENTITY = (
    'must be "default", { client = … } for an identity of this machine, or '
    "{ tenant = …, client = …, secret = … }"
)


class AdFs(Part):
    """An application of a Stack Hub's AD FS. No public login service is asked, not even about it."""

    authority: Address = Field(description="AD FS of the hub, such as https://adfs.region.hub.example.")
    client: Name = Field(description="The application.")
    secret: Secret = Field(description="The application's secret.")
    audience: Address | None = Field(
        None, description="What the token is for, as the hub names it; what the client asks for when absent."
    )


class Credential(Part):
    """Who we are to a service: exactly one of `key`, `sas`, `entra` and `adfs`."""

    key: Secret | None = Field(None, description="The storage account's key.")
    account: Name | None = Field(
        None, description="Account of that key; the first word of the endpoint's host when absent."
    )
    sas: Secret | None = Field(None, description="A shared access signature.")
    entra: Entra | None = Field(None, description='Microsoft Entra: "default", or an application.')
    adfs: AdFs | None = Field(None, description="AD FS of a Stack Hub.")

    @model_validator(mode="after")
    def _one(self) -> Self:
        given = [each for each in (self.key, self.sas, self.entra, self.adfs) if each is not None]
        if len(given) != 1:
            raise ValueError(
                "must have exactly one of key, sas, entra and adfs"
                + (f", it has {len(given)}" if given else "")
            )
        if self.account and not self.key:
            raise ValueError("account goes with key alone: a signature and a token name theirs")
        return self


class TokenCredential(Part):
    """Who we are to a service that takes tokens alone: exactly one of `entra` and `adfs`."""

    entra: Entra | None = Field(None, description='Microsoft Entra: "default", or an application.')
    adfs: AdFs | None = Field(None, description="AD FS of a Stack Hub.")

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.entra is None) == (self.adfs is None):
            raise ValueError("must have exactly one of entra and adfs")
        return self
