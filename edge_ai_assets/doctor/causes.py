"""From what a client raised to a cause: whichever client it is, the system's own error is somewhere in it.

What a storage account means by its codes is `storage`'s matter.
"""

from __future__ import annotations

import errno
import re
import socket
import ssl
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

from edge_ai_assets.doctor.finding import Cause
from edge_ai_assets.resources.identity.secret import SecretError
from edge_ai_assets.resources.storage.account import no_credential

SKEW_SECONDS = 300.0
"""More than that a clock is wrong. Storage refuses what was signed a quarter of an hour ago."""
WRONG_NAME = frozenset({62, 64})
NOT_NOW = frozenset({9, 10, 11, 12})
"""Codes of OpenSSL (X509_V_ERR_*): another host or address; not yet, or no longer valid."""
NO_ROUTE = frozenset({errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN})
BUSY = frozenset({408, 429})
Why = tuple[Cause, str]


def why(error: BaseException) -> Why:
    """The cause of an error of a call, and what else is known of it, without secrets."""
    if isinstance(error, SecretError):
        return Cause.SECRET, str(error)
    if found := of_network(error):
        return found
    if found := of_login(error):
        return found
    for each in chain(error):
        status = getattr(each, "status_code", None) or getattr(each, "status", None)
        if isinstance(status, int):
            return of_status(status, headers_of(each))
    return Cause.OTHER, type(error).__name__


def of_network(error: BaseException) -> Why | None:
    """What kept a request from being answered; None when it was."""
    found = list(chain(error))
    at = next((host for each in found if (host := _host(each))), "")
    proxied = next((each for each in found if type(each).__name__ == "ProxyError"), None)
    at = f"the proxy {at}".strip() if proxied else at
    if any(isinstance(each, socket.gaierror) for each in found):
        return Cause.NAME, at
    for each in found:
        if isinstance(each, ssl.SSLCertVerificationError):
            return _of_certificate(each, at)
    if any(isinstance(each, ssl.SSLError) for each in found):
        return Cause.OTHER, f"{at} speaks no TLS that is known here".strip()
    if any(isinstance(each, ConnectionRefusedError) for each in found):
        return Cause.REFUSED, at
    if any(isinstance(each, TimeoutError) or "Timeout" in type(each).__name__ for each in found):
        return Cause.TIMEOUT, at
    if any(isinstance(each, OSError) and each.errno in NO_ROUTE for each in found):
        return Cause.TIMEOUT, f"there is no route to {at}"
    names = {type(each).__name__ for each in found}
    if names & {"BadStatusLine", "InvalidHeader", "LocationParseError"}:
        return Cause.OTHER, at
    if names & {"ConnectionResetError", "RemoteDisconnected", "BrokenPipeError", "IncompleteRead"}:
        return Cause.CLOSED, at
    if proxied:
        status = re.search(r"Tunnel connection failed: (\d{3})", str(proxied))
        return Cause.CLOSED, f"{at} says {status[1]}" if status else at
    return None


def _host(error: BaseException) -> str:
    """Whom urllib3 could not reach: it may be a login service."""
    named: Any = error if type(error).__name__ != "MaxRetryError" else error.__dict__.get("pool")
    return str(getattr(getattr(named, "conn", named), "host", ""))


def _of_certificate(error: ssl.SSLCertVerificationError, at: str) -> Why:
    if error.verify_code in WRONG_NAME:
        return Cause.WRONG_HOST, error.verify_message
    if error.verify_code in NOT_NOW:
        return Cause.CERTIFICATE, error.verify_message
    return Cause.UNTRUSTED, f"{at}: {error.verify_message}".removeprefix(": ")


def of_login(error: BaseException) -> Why | None:
    """What the login service said, if it was asked: its own code, such as AADSTS7000215, says most."""
    for each in chain(error):
        name = type(each).__name__
        if name == "CredentialUnavailableError":
            return Cause.CREDENTIAL, "this machine has no identity that could be used"
        if isinstance(each, Exception) and (said := no_credential(each)):
            return Cause.CREDENTIAL, said
        if name == "ClientAuthenticationError":
            return Cause.CREDENTIAL, "no token was given"
    return None


def of_status(status: int, headers: Mapping[str, str]) -> Why:
    """What an answer means that is no success."""
    behind = skew(headers)
    if status in (401, 403) and behind is not None and abs(behind) > SKEW_SECONDS:
        return Cause.CLOCK, said_of(behind)
    if status == 401:
        return Cause.CREDENTIAL, "401"
    if status == 403:
        return Cause.PERMISSION, "403"
    if status == 404:
        return Cause.MISSING, "404"
    if status >= 500 or status in BUSY:
        return Cause.BUSY, str(status)
    return Cause.OTHER, str(status)


def skew(headers: Mapping[str, Any], now: datetime | None = None) -> float | None:
    """Seconds that the clock here is ahead of the one that answered; None when that says nothing.

    Args:
        headers: as they came, or as a client understood them.
    """
    said = headers.get("Date") or headers.get("date")
    try:
        there = said if isinstance(said, datetime) else parsedate_to_datetime(said or "")
    except (TypeError, ValueError):
        return None
    there = there if there.tzinfo else there.replace(tzinfo=UTC)
    return ((now or datetime.now(UTC)) - there).total_seconds()


def said_of(behind: float) -> str:
    minutes = abs(behind) / 60
    return f"it is {minutes:,.0f} minutes {'ahead of' if behind > 0 else 'behind'} the service's"


def headers_of(error: BaseException) -> Mapping[str, str]:
    return getattr(getattr(error, "response", None), "headers", None) or {}


def chain(error: BaseException) -> Iterator[BaseException]:
    """The error and all that it came from, whichever way its library says so."""
    todo, seen = [error], {id(error)}
    while todo:
        one = todo.pop(0)
        yield one
        inner = [one.__cause__, one.__context__, getattr(one, "inner_exception", None)]
        inner += [getattr(one, "reason", None), *one.args]
        for each in inner:
            if isinstance(each, BaseException) and id(each) not in seen:
                seen.add(id(each))
                todo.append(each)
