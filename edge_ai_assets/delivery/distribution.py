"""One repository of a registry, over HTTP: requests, who we are there, and what went wrong as a sentence.

Which requests make a release is `registry`'s and `push`'s. PyPI `oras` gives the session, and tokens for a
password. What it does not do stands here, on its session: an end to waiting (it has no time-outs, and tries
again for two minutes; see `impatient`), another token for one that has expired (it presents the same again),
Basic where a registry asks for that, and answers that are read no further than was asked for.
Source: OCI distribution specification v1.1; for Azure Container Registry its AAD-OAuth documentation.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from urllib.parse import urljoin, urlsplit

import requests
from urllib3.exceptions import HTTPError

from edge_ai_assets.delivery.errors import DeniedError, MalformedError, UnreachableError
from edge_ai_assets.delivery.impatient import Impatient
from edge_ai_assets.delivery.sign_in import Anonymous, Challenge, Credential, Password

CONNECT_SECONDS = 5.0
READ_SECONDS = 60.0
"""Before an answer that began goes on. Registries take a while to check a layer of gigabytes."""
BUSY = frozenset({408, 429, 500, 502, 503, 504})
PATIENCE = 20.0
"""Seconds that a registry may make us wait before one more try."""
TRIES = 3
LOOPBACK = frozenset({"127.0.0.1", "localhost"})
_NAME = re.compile(r"([A-Za-z0-9._-]+)(:[0-9]{1,5})?/([a-z0-9]+(?:(?:[._/]|__|-+)[a-z0-9]+)*)")
_FIELD = re.compile(r'([A-Za-z]+)="([^"]*)"')
_CODE = re.compile(r'"code"\s*:\s*"([A-Z_]{1,40})"')


class Repository:
    """A repository, and one session with its registry. One thread at a time.

    Args:
        name: HOST/PATH.
        ca: PEM file of the authority that signed the registry's certificate; the system's when absent. A
            registry on this very machine is asked without TLS then, as container engines do.
        sleep: waits so many seconds before one more try.

    Raises:
        ValueError: the name is none.
    """

    def __init__(
        self,
        name: str,
        credential: Credential | None = None,
        *,
        ca: Path | None = None,
        connect_seconds: float = CONNECT_SECONDS,
        read_seconds: float = READ_SECONDS,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        from oras.provider import Registry

        match = _NAME.fullmatch(name)
        if not match:
            raise ValueError(
                f"repository {name!r} is refused: it must be HOST/PATH, the path in lower case, without tag "
                "or digest, such as acr.azurecr.io/edge/pump-station"
            )
        host, self._path = f"{match[1]}{match[2] or ''}", match[3]
        clear = match[1] in LOOPBACK and ca is None
        self.name = name
        self.base = f"{'http' if clear else 'https'}://{host}/"
        self._credential = credential or Anonymous()
        self._sleep = sleep
        self._verify = str(ca) if ca else True
        self._oras = Registry(hostname=host, insecure=clear, tls_verify=self._verify)
        self._session: requests.Session = self._oras.session
        self._session.auth = _unsigned
        self._road = Impatient((connect_seconds, read_seconds))
        for prefix in ("http://", "https://"):
            self._session.mount(prefix, self._road)
        self._authorization: str | None = None

    def ask(
        self,
        method: str,
        where: str,
        *,
        doing: str,
        headers: Mapping[str, str] | None = None,
        data: bytes | None = None,
        also: frozenset[int] = frozenset(),
    ) -> requests.Response:
        """One request; its answer is not read yet, and must be closed.

        Args:
            where: below the repository, such as `manifests/latest`; or a whole address that it gave us.
            doing: what for, as in "pulling x", for errors.
            also: which answers besides 2xx the caller takes.

        Raises:
            UnreachableError: nobody answers, or is too busy to.
            DeniedError: the registry does not let us do this.
        """
        url = joined(f"{self.base}v2/{self._path}/", where)
        known = self._authorization is not None
        for attempt in range(TRIES + 1):
            try:
                answer = self._send(method, url, headers or {}, data)
                # Who asks where the registry has sent us on to is not told: the realm would be its own.
                ours = answer.url.startswith(self.base)
                if answer.status_code == 401 and ours and (known or attempt == 0):
                    known = False  # it had expired, or was for less than this
                    self._authorize(answer)
                    answer = self._send(method, url, headers or {}, data)
            except requests.exceptions.SSLError as error:
                raise DeniedError(
                    f"{doing}: {self.name} has no certificate that is trusted here ({_first(error)}): set "
                    "its `ca` in [registry]"
                ) from None
            except requests.Timeout:
                raise UnreachableError(f"{doing}: {self.name} does not answer") from None
            except requests.RequestException as error:
                if attempt == 0 and method in ("GET", "HEAD"):
                    continue  # a connection that was kept, and that the other end closed meanwhile
                raise UnreachableError(
                    f"{doing}: {self.name} is out of reach ({type(error).__name__})"
                ) from None
            except ValueError as error:  # `requests` takes addresses and tokens as they come
                raise MalformedError(
                    f"{doing}: {self.name} gives what no request can hold: {error}"
                ) from None
            if answer.ok or answer.status_code in also:
                return answer
            with answer:
                wait = _wait(answer, attempt)
                if answer.status_code not in BUSY or attempt == TRIES or wait > PATIENCE:
                    raise self._said(doing, answer)
            self._sleep(wait)
        raise AssertionError("every try returns, raises or goes on")

    def token(self, asked: Challenge, password: Password | None) -> str:
        """A bearer token from where the registry says that there are some."""
        from oras.auth.utils import authHeader

        realm = urlsplit(asked.realm)
        if realm.scheme != "https" and realm.hostname not in LOOPBACK:
            raise DeniedError(f"{self.name} wants us to ask {asked.realm} for a token, without TLS: refused")
        header = authHeader({"realm": asked.realm, "service": asked.service, "scope": asked.scope})
        try:
            if password:
                self._oras.auth.set_basic_auth(password.user, password.password)
                found = self._oras.auth.request_token(header)
            else:
                found = self._oras.auth.request_anonymous_token(header)
        except (requests.JSONDecodeError, AttributeError):  # what answered is no JSON, or no object
            found = None
        if not isinstance(found, str) or not found:
            raise self._no_token(asked.realm)
        return f"Bearer {found}"

    def answered(self, path: str, form: Mapping[str, str], name: str) -> str:
        """One value of the answer to a form that is sent to the registry, and to nobody else: a secret is in
        it."""
        answer = self._session.post(self.base + path, data=form, verify=self._verify, allow_redirects=False)
        try:
            found = answer.json().get(name) if answer.status_code == 200 else None
        except (requests.JSONDecodeError, AttributeError):  # no JSON, or no object
            found = None
        if not isinstance(found, str) or not found:
            raise self._no_token(answer.url)
        return found

    def _no_token(self, url: str) -> UnreachableError | DeniedError:
        where, status = f"{self.name}: {urlsplit(url).netloc}", self._road.status
        if status in BUSY:  # `oras` tells an outage from a refusal as little as from no token at all
            return UnreachableError(
                f"{where}, which gives its tokens, is too busy or out of order ({status})"
            )
        if status < 400:
            return DeniedError(
                f"{where} gives no token ({status}): is that a registry, and one that knows this kind of "
                "credential?",
                status,
            )
        return DeniedError(
            f"{where} refuses the credential ({status}): check that it is this registry's, that it has not "
            "expired and that the clock here is right",
            status,
        )

    def _send(
        self, method: str, url: str, headers: Mapping[str, str], data: bytes | None
    ) -> requests.Response:
        def signed(request: requests.PreparedRequest) -> requests.PreparedRequest:
            if self._authorization and url.startswith(self.base):
                request.headers["Authorization"] = self._authorization
            return request

        # A body that was compressed on the way would have other offsets than the blob.
        plain = {"Accept-Encoding": "identity", **headers}
        return self._session.request(
            method,
            url,
            headers=plain,
            data=data,
            auth=signed,
            stream=True,
            verify=self._verify,
        )

    def _authorize(self, refused: requests.Response) -> None:
        with refused:
            said = refused.headers.get("WWW-Authenticate", "")
        scheme, _, rest = said.partition(" ")
        fields = dict(_FIELD.findall(rest))
        asked = Challenge(
            scheme.lower(), fields.get("realm", ""), fields.get("service", ""), fields.get("scope", "")
        )
        if asked.scheme not in ("basic", "bearer"):
            raise DeniedError(f"{self.name} asks who we are in a way that is not known here: {said[:80]!r}")
        self._authorization = self._credential.authorization(asked, self)

    def _said(self, doing: str, answer: requests.Response) -> UnreachableError | DeniedError:
        status = answer.status_code
        try:
            found = _CODE.search(answer.raw.read(4096).decode("utf-8", "replace"))
        except HTTPError:  # it says no more than its status
            found = None
        what = f"{status} {found[1]}" if found else str(status)
        where = f"{doing}: {self.name}"
        if status in BUSY:
            return UnreachableError(f"{where} is too busy or out of order ({what})", status)
        if status in (401, 403):
            return DeniedError(
                f"{where} does not let us ({what}): check the credential in [registry], that it may do this "
                "there, and that the clock here is right",
                status,
            )
        if found is None:
            return UnreachableError(
                f"{where}: something else than a registry answers ({what}), a portal maybe", status
            )
        return DeniedError(f"{where} refuses ({what})", status)


def joined(base: str, where: str) -> str:
    """An address that a registry gave us, as a whole one; MalformedError when it is none."""
    try:
        return urljoin(base, where)
    except ValueError as error:
        raise MalformedError(f"{urlsplit(base).netloc} sends us to {where[:80]!r}: {error}") from None


def _unsigned(request: requests.PreparedRequest) -> requests.PreparedRequest:
    """Keeps passwords of ~/.netrc out of it."""
    return request


def _wait(answer: requests.Response, attempt: int) -> float:
    """Seconds until the next try, as the registry says or else rising."""
    said = answer.headers.get("Retry-After", "")
    return float(said) if re.fullmatch(r"[0-9]{1,6}", said) else 2.0**attempt


def _first(error: Exception) -> str:
    found = re.search(r"certificate verify failed: ([^(']*)", str(error))
    return found[1].strip() if found else type(error).__name__
