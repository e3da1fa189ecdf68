"""What a check found: a service, what is wrong with it, and what to do."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum

import msgspec


class State(StrEnum):
    FINE = "fine"
    FAILED = "failed"
    UNREACHABLE = "out of reach"


class Cause(StrEnum):
    """Why a service cannot be used, told apart as far as what to do differs."""

    NAME = "name"
    REFUSED = "refused"
    TIMEOUT = "timeout"
    CLOSED = "closed"
    BUSY = "busy"
    OTHER = "other"
    UNTRUSTED = "untrusted"
    WRONG_HOST = "wrong host"
    CERTIFICATE = "certificate"
    CLOCK = "clock"
    CREDENTIAL = "credential"
    EXPIRED = "expired"
    PERMISSION = "permission"
    VERSION = "version"
    MISSING = "missing"
    SECRET = "secret"  # noqa: S105 (a cause, not one)
    SETTINGS = "settings"
    HERE = "here"


AWAY = frozenset({Cause.NAME, Cause.REFUSED, Cause.TIMEOUT, Cause.CLOSED, Cause.BUSY, Cause.OTHER})
"""Causes that may pass by themselves: the service is out of reach."""
WORDS = {
    Cause.NAME: "its name does not resolve: check the endpoint, the name server, and that the link is up",
    Cause.REFUSED: "it refuses connections: check the endpoint's port, and that the service runs",
    Cause.TIMEOUT: "it does not answer: check the firewall between here and there, and that the link is up",
    Cause.CLOSED: "it closes the connection: check the proxy or firewall between here and there",
    Cause.BUSY: "it is too busy or out of order: wait, then look at its own health",
    Cause.OTHER: "something else answers there, a portal or a proxy maybe: sign in to the network, or check "
    "the endpoint",
    Cause.UNTRUSTED: "its certificate is signed by nobody who is trusted here: set `ca` to the PEM file of "
    "its authority",
    Cause.WRONG_HOST: "its certificate is another host's: check the endpoint's name",
    Cause.CERTIFICATE: "its certificate is not valid now: renew it, and check the clock here",
    Cause.CLOCK: "the clock here is wrong: set it, by NTP if there is a server",
    Cause.CREDENTIAL: "it refuses the credential: check that it is this account's and was not replaced",
    Cause.EXPIRED: "the signature has expired: issue another, and put it where the settings refer to",
    Cause.PERMISSION: "the credential may not do this there: give it the rights, and check the account's "
    "firewall",
    Cause.VERSION: "it does not know this version of the API: set `api_version`, 2019-07-07 for an Azure "
    "Stack Hub",
    Cause.MISSING: "it is not there: create it, or correct its name",
    Cause.SECRET: "the secret cannot be fetched",
    Cause.SETTINGS: "the settings cannot be used",
    Cause.HERE: "this machine is not as it must be",
}


class Finding(msgspec.Struct, frozen=True):
    """What became of one check.

    Args:
        service: as the settings name it, such as `stack_hub.uplink`.
        where: host and place that were asked.
        cause: None when all is fine.
        detail: what else is known, for instance the service's own word.
    """

    service: str
    where: str
    cause: Cause | None = None
    detail: str = ""

    @property
    def state(self) -> State:
        if self.cause is None:
            return State.FINE
        return State.UNREACHABLE if self.cause in AWAY else State.FAILED

    @property
    def said(self) -> str:
        """One line: what is wrong, and what to do."""
        if self.cause is None:
            return self.detail or "answers"
        return WORDS[self.cause] + (f" ({self.detail})" if self.detail else "")


Check = Callable[[], Finding]
