"""A storage account as our clients talk to it: endpoint, credential, version, time-outs, errors as sentences.

Which blobs and messages are kept there is the business of the modules that use it.
"""

from __future__ import annotations

import re
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from edge_ai_assets.returns.road.link import LinkDown

if TYPE_CHECKING:
    from azure.core.credentials import AzureNamedKeyCredential, AzureSasCredential, TokenCredential
    from azure.storage.blob import ContainerClient
    from azure.storage.queue import QueueClient

    Credential = AzureNamedKeyCredential | AzureSasCredential | TokenCredential

HUB_API_VERSION = "2019-07-07"
"""The newest that the storage of Azure Stack Hub speaks."""
BUSY = frozenset({408, 429})
_LOGIN = re.compile(r"\b(AADSTS\d+|MSIS\d+|invalid_\w+|unauthorized_client)\b")
MISSING = frozenset({"BlobNotFound", "MessageNotFound"})


class Busy(LinkDown):
    """The account is there and asks to be left alone for a while: `after` seconds, if it said how many."""

    after: float | None = None


@dataclass(frozen=True)
class Account:
    """One endpoint of a storage account.

    Args:
        endpoint: of its blobs or of its queues, whatever its suffix: `https://acct.blob.region.hub.example`.
        credential: an account key, a shared access signature or a token credential; never shown.
        api_version: None for the client's own; HUB_API_VERSION for an Azure Stack Hub.
        connect_seconds: before a server that takes no connection, or has no address, is out of reach.
        read_seconds: before a server that does not answer is.
        ca: certificates that are trusted there instead of the system's.
    """

    endpoint: str
    credential: Credential = field(repr=False)
    api_version: str | None = None
    connect_seconds: float = 5.0
    read_seconds: float = 20.0
    ca: Path | None = None

    def container(self, name: str, **options: Any) -> ContainerClient:
        """A container as the client sees it; `options` are the client's own."""
        from azure.storage.blob import ContainerClient

        return ContainerClient(
            self.endpoint, name, credential=self.credential, **{**self._options(), **options}
        )

    def queue(self, name: str) -> QueueClient:
        """A queue whose messages are text as it stands: a decoder in the client would fail a whole page for
        one strange message."""
        from azure.storage.queue import QueueClient

        return QueueClient(self.endpoint, name, credential=self.credential, **self._options())

    @contextmanager
    def talking(self, doing: str, refused: type[Exception]) -> Iterator[None]:
        """Around calls of a client: says what went wrong in one sentence.

        Args:
            doing: what for, as in "sending x".
            refused: raised when trying again does not help; its message says what to do.

        Raises:
            LinkDown: the account was out of reach, or too busy: it can be tried again.
        """
        from azure.core.exceptions import AzureError

        if self.ca and not self.ca.is_file():
            raise refused(f"{doing}: {self.ca}, whose certificates are to be trusted, is not there: mount it")
        self._resolve(doing)
        try:
            yield
        except AzureError as error:
            # Without the cause: its text holds the address asked for, and with it a shared access signature.
            raise self._said(doing, error, refused) from None
        except ValueError as error:
            if type(error) is not ValueError:
                raise
            # What the clients raise of an answer without the headers they need.
            raise LinkDown(
                f"{doing}: something else than storage answers at {self.host}, a portal maybe"
            ) from None

    def _options(self) -> dict[str, Any]:
        version = {"api_version": self.api_version} if self.api_version else {}
        # Trying again is the caller's decision: the client's own retries would hold it up for minutes.
        return {**version, **self.connecting(), "retry_total": 0}

    def connecting(self) -> dict[str, Any]:
        """Time-outs, and whom to trust, as a transport of the clients takes them."""
        return {
            "connection_timeout": self.connect_seconds,
            "read_timeout": self.read_seconds,
            **({"connection_verify": str(self.ca)} if self.ca else {}),
        }

    @property
    def host(self) -> str:
        return urlsplit(self.endpoint).netloc

    def _resolve(self, doing: str) -> None:
        """Look up in time whom to connect to: the system's resolver may take minutes.

        That is a proxy where the environment names one; the host's own name may be known to it alone.
        """
        from requests.utils import get_environ_proxies, select_proxy

        proxy = select_proxy(self.endpoint, get_environ_proxies(self.endpoint))
        parts = urlsplit(self.endpoint if not proxy else proxy if "://" in proxy else f"http://{proxy}")
        whom = f"the proxy {parts.hostname}" if proxy else self.host
        found: list[OSError | None] = []

        def look_up() -> None:
            try:
                socket.getaddrinfo(parts.hostname, None, type=socket.SOCK_STREAM)
                found.append(None)
            except OSError as error:
                found.append(error)

        thread = threading.Thread(target=look_up, daemon=True)
        thread.start()
        thread.join(self.connect_seconds)
        if not found:
            raise LinkDown(f"{doing}: nobody told the address of {whom} in {self.connect_seconds:g} s")
        if found[0]:
            raise LinkDown(f"{doing}: the address of {whom} is not known here: {found[0].strerror}")

    def _said(self, doing: str, error: Exception, refused: type[Exception]) -> Exception:
        status = getattr(error, "status_code", None)
        code = _code(error)
        where = f"{doing}: {self.host}"
        if status is None and (reason := no_credential(error)):
            return refused(
                f"{where} cannot be asked with this credential ({reason}): check that it was not "
                "replaced and has not expired"
            )
        if status is None:
            return LinkDown(f"{where} is out of reach ({type(error).__name__}); what was to be sent waits")
        if status >= 500 or status in BUSY:
            busy = Busy(f"{where} is too busy or out of order ({status} {code}); what was to be sent waits")
            busy.after = _retry_after(error)
            return busy
        if status in (401, 403):
            return refused(
                f"{where} refuses the credential ({status} {code}): check that it is the account's, that it "
                "has not expired, that it may read and write there, and that the clock here is right"
            )
        if code in ("ContainerNotFound", "QueueNotFound"):
            return refused(f"{where} has no such place ({code}): create it, or correct its name")
        if status < 400 or (status == 404 and not code):
            return LinkDown(f"{where}: something else than storage answers there ({status}), a portal maybe")
        return refused(f"{where} refuses ({status} {code})")


def missing(error: Exception) -> bool:
    """Whether an error says that this one blob or message is not there, and storage itself says so."""
    return _code(error) in MISSING


def no_credential(error: Exception) -> str | None:
    """Why a credential cannot even be shown: the key is none, or a login service refuses, in its own code.
    None when it is something else, say that the login service is out of reach."""
    name = type(error).__name__
    if name == "AzureSigningError":
        return "the key is no base64"
    said = _LOGIN.search(str(error)) if name == "ClientAuthenticationError" else None
    return f"the login service says {said[0]}" if said else None


def _retry_after(error: Exception) -> float | None:
    """What the answer says of when to ask again, in seconds; None for a date, or nothing."""
    said = getattr(getattr(error, "response", None), "headers", {}).get("Retry-After", "")
    return float(said) if said.isdecimal() else None


def _code(error: Exception) -> str:
    """Storage's own word for what went wrong; '' when something else answered, or nobody."""
    code = getattr(error, "error_code", None)
    return str(getattr(code, "value", code) or "")
