"""One REST service of Azure's control planes as our clients talk to it: token, time-outs, patience, errors as
sentences.

What is asked of a service is the business of the module that uses it. Storage has a client of its own:
`storage.account`.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

import msgspec

from edge_ai_assets.resources.calling.patience import Refused, Unavailable

if TYPE_CHECKING:
    from azure.core import PipelineClient
    from azure.core.credentials import TokenCredential
    from azure.core.rest import HttpResponse

T = TypeVar("T")
BUSY = frozenset({408, 429})
NOT_DONE = frozenset({408, 429, 503})
"""Answers by which a service says that it did not do what was asked. After a 500 it may have."""


class Answer(msgspec.Struct, frozen=True):
    """What a service answered."""

    doing: str
    body: Any
    """Decoded JSON; None for an empty body."""
    headers: Mapping[str, str]

    def read(self, kind: type[T]) -> T:
        """The body as a kind; Refused when it is none."""
        try:
            return msgspec.convert(self.body, kind)
        except msgspec.ValidationError as error:
            raise Refused(f"{self.doing}: the answer is not as documented: {error}") from None


@dataclass(frozen=True)
class Login:
    """User and password, sent with every request (RFC 7617)."""

    user: str
    password: str = field(repr=False)


@dataclass(frozen=True)
class ControlPlane:
    """A service at one address.

    Args:
        endpoint: `https://management.azure.com`, or that of another cloud.
        credential: gives tokens, or is a login; None where nobody is asked who they are. Never shown.
        scope: that tokens are asked for.
        ca: certificates that are trusted instead of the system's.
        connect_seconds: before a server that takes no connection is out of reach.
        read_seconds: before one that does not answer is.
        headers: that the service wants with every request.
    """

    endpoint: str
    credential: TokenCredential | Login | None = field(repr=False)
    scope: str = ""
    ca: Path | None = None
    connect_seconds: float = 5.0
    read_seconds: float = 30.0
    headers: Mapping[str, str] = field(default_factory=dict)

    def call(
        self,
        doing: str,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Any = None,
    ) -> Answer:
        """One request, tried once; twice when the token had expired.

        Args:
            doing: what for, as in "starting pipeline x".
            path: below the endpoint, quoted.
            body: sent as JSON; nothing for None.

        Raises:
            Unavailable: no answer, or one that asks to come again.
            Refused: a word for why, and what to do.
        """
        from azure.core.exceptions import AzureError, ClientAuthenticationError, ServiceResponseError
        from azure.core.rest import HttpRequest

        if urlsplit(self.endpoint).scheme != "https":
            raise Refused(f"{doing}: {self.endpoint} is no https:// address, and a token is sent to no other")
        for last in (False, True):
            request = HttpRequest(method, self.endpoint + path, params=dict(query or {}), json=body)
            try:
                response = self._client.send_request(request)
            except ClientAuthenticationError as error:
                raise Refused(
                    f"{doing}: no token for {self.host}: {_line(error)}; check tenant, client and "
                    "secret, and the clock here"
                ) from None
            except AzureError as error:
                raise Unavailable(
                    f"{doing}: {self.host} is out of reach ({_line(error)})",
                    done=isinstance(error, ServiceResponseError),
                ) from None
            # The policy forgets a token that was refused, so the second request has a new one.
            if response.status_code != 401 or last:
                break
        return self._answer(doing, response)

    @property
    def host(self) -> str:
        return urlsplit(self.endpoint).netloc

    @cached_property
    def _client(self) -> PipelineClient[Any, Any]:
        from azure.core import PipelineClient
        from azure.core.pipeline.policies import HeadersPolicy, UserAgentPolicy

        # No retry policy: it repeats a POST that was answered by 500, and that starts a second run. No
        # redirects: none of these services sends any, and a portal that does gets no token.
        policies = [
            HeadersPolicy({"Accept": "application/json", **self.headers}),
            UserAgentPolicy("edge_ai_assets"),
            *self._authentication(),
        ]
        options: dict[str, Any] = {"connection_verify": str(self.ca)} if self.ca else {}
        options |= {"connection_timeout": self.connect_seconds, "read_timeout": self.read_seconds}
        return PipelineClient(self.endpoint, policies=policies, **options)

    def _authentication(self) -> list[Any]:
        from azure.core.pipeline.policies import BearerTokenCredentialPolicy, HeadersPolicy

        if self.credential is None:
            return []
        if not isinstance(self.credential, Login):
            return [BearerTokenCredentialPolicy(self.credential, self.scope)]
        if urlsplit(self.endpoint).scheme != "https":
            raise Refused(f"{self.endpoint} is no https:// address, and a password would be sent there")
        login = base64.b64encode(f"{self.credential.user}:{self.credential.password}".encode()).decode()
        return [HeadersPolicy({"Authorization": f"Basic {login}"})]

    def _answer(self, doing: str, response: HttpResponse) -> Answer:
        status, data = response.status_code, response.content
        where = f"{doing}: {self.host}"
        try:
            body = msgspec.json.decode(data) if data.strip() else None
        except msgspec.DecodeError:
            if status < 400:
                raise Unavailable(
                    f"{where}: something else answers there, a portal maybe", done=True
                ) from None
            body = None
        if 200 <= status < 300:
            return Answer(doing, body, response.headers)
        code, message = _error(body)
        said = f"({status} {code})" if code else f"({status})"
        if status >= 500 or status in BUSY:
            raise Unavailable(
                f"{where} is too busy or out of order {said}",
                done=status not in NOT_DONE,
                wait=_seconds(response.headers.get("Retry-After")),
            )
        if status in (401, 403):
            raise Refused(
                f"{where} refuses the credential {said}: {message or 'no reason given'}; check that it "
                "belongs to this tenant, may do this there, and that the clock here is right",
                status,
                code,
            )
        if status == 404:
            raise Refused(f"{where} knows no such thing {said}: {message or 'check the names'}", status, code)
        if status < 400:
            raise Unavailable(f"{where}: something else answers there {said}, a portal maybe")
        raise Refused(f"{where} refuses {said}: {message or 'no reason given'}", status, code)


def _error(body: Any) -> tuple[str, str]:
    """Code and message of an error: `{"error": {...}}`, or the same without that level; Livy says `msg`."""
    told = body.get("error", body) if isinstance(body, dict) else {}
    if not isinstance(told, dict):
        return str(told), ""
    message = " ".join(str(told.get("message") or told.get("msg") or "").split())
    return str(told.get("code") or ""), message[:500]


def _line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]


def _seconds(value: str | None) -> float | None:
    """Of a Retry-After header: seconds, or a date (RFC 9110, 10.2.3); None for nothing or nonsense."""
    if not value:
        return None
    try:
        wait = float(value) if value.strip().isdigit() else _until(value)
    except (TypeError, ValueError):
        return None
    return max(0.0, wait)


def _until(date: str) -> float:
    return (parsedate_to_datetime(date) - datetime.now(UTC)).total_seconds()
