"""Contract stub: a container registry in memory. It speaks the OCI distribution specification, and signs
people in as Azure Container Registry does, or plainly; and it can be told to misbehave.

Source: https://github.com/opencontainers/distribution-spec v1.1 and, for tokens,
https://github.com/Azure/acr/blob/main/docs/AAD-OAuth.md (POST /oauth2/exchange, POST and GET /oauth2/token).
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections import Counter
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

ENTRA_TOKEN, USER, PASSWORD = "token-of-entra", "site-bergen", "a password"
BLOB = re.compile(r"/v2/(.+)/blobs/(sha256:[0-9a-f]{64})")
MANIFEST = re.compile(r"/v2/(.+)/manifests/([^/]+)")
UPLOADS = re.compile(r"/v2/(.+)/blobs/uploads/(\d*)")
TAGS = re.compile(r"/v2/(.+)/tags/list")


@dataclass
class Asked:
    """One request that came."""

    method: str
    path: str
    headers: dict[str, str]
    form: dict[str, str]


@dataclass
class Canned:
    """An answer that is given instead of the registry's own, to so many requests of that kind."""

    method: str
    path: str
    """A regular expression."""
    status: int
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b'{"errors":[{"code":"UNAVAILABLE"}]}'
    times: int = 1


class Acr:
    """See the module. A context manager; its `repository` is what a client is given.

    Args:
        auth: None, "basic", "bearer" (a password gets a token) or "entra" (a token of Entra gets one).
        ranges: whether it gives parts of a blob.
        referrers: whether it lists referrers by itself.
        page: tags that one list of them holds.
        elsewhere: whether blobs are given by another host, as signed addresses.
    """

    def __init__(
        self,
        *,
        auth: str | None = None,
        ranges: bool = True,
        referrers: bool = False,
        page: int = 1000,
        elsewhere: bool = False,
    ) -> None:
        self.auth, self.ranges, self.referrers = auth, ranges, referrers
        self.page, self.elsewhere = page, elsewhere
        self.blobs: dict[str, bytes] = {}
        self.manifests: dict[str, bytes] = {}
        """By digest."""
        self.tags: dict[str, str] = {}
        self.uploads: dict[str, bytearray] = {}
        self.asked: list[Asked] = []
        self.canned: list[Canned] = []
        self.cut_after: list[int] = []
        """For the next blobs that are given: bytes after which the connection ends. Negative: as if whole."""
        self.take_only: list[int] = []
        """For the next pieces that come: bytes that are kept before the connection ends."""
        self.tokens: dict[str, str] = {}
        """Scope, by token that is good."""
        self.sent: Counter[str] = Counter()
        """Bytes of blobs that were given, by digest."""
        self._made = 0
        self._lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True

    @property
    def port(self) -> int:
        return self._server.server_address[1]

    @property
    def repository(self) -> str:
        return f"127.0.0.1:{self.port}/edge/pump"

    def expire(self) -> None:
        """All tokens that were given are good no longer."""
        self.tokens.clear()

    def count(self, method: str, path: str = "") -> int:
        """How many requests of that kind came."""
        return sum(asked.method == method and bool(re.search(path, asked.path)) for asked in self.asked)

    def token(self, kind: str, scope: str = "") -> str:
        with self._lock:
            self._made += 1
            self.tokens[made := f"{kind}-{self._made}"] = scope
            return made

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._server.shutdown()
        self._server.server_close()


def _handler(acr: Acr) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = 1 << 20  # head and body in one packet: else each answer waits for an acknowledgement

        def log_message(self, *arguments: Any) -> None: ...

        def answer(self, status: int, body: bytes = b"", **headers: str) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name.replace("_", "-"), value)
            if "Content_Length" not in headers:
                self.send_header("Content-Length", str(len(body)))
            elif int(headers["Content_Length"]) != len(body):
                self.close_connection = True  # cut off
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def error(self, status: int, code: str, **headers: str) -> None:
            body = json.dumps({"errors": [{"code": code, "message": "…"}]}).encode()
            self.answer(status, body, Content_Type="application/json", **headers)

        def handle_one(self) -> None:
            parts = urlsplit(self.path)
            self.data = b""
            if parts.path.startswith("/v2/") and self.command == "PATCH" and acr.take_only:
                self.data = self.rfile.read(acr.take_only.pop(0))
                acr.uploads[UPLOADS.fullmatch(parts.path)[2]] += self.data
                self.close_connection = True
                return
            self.data = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            form = (
                {name: values[0] for name, values in parse_qs(self.data.decode()).items()}
                if self.headers.get("Content-Type") == "application/x-www-form-urlencoded"
                else {}
            )
            acr.asked.append(Asked(self.command, self.path, dict(self.headers), form))
            for canned in acr.canned:
                if canned.method == self.command and re.search(canned.path, self.path) and canned.times:
                    canned.times -= 1
                    self.answer(canned.status, canned.body, **canned.headers)
                    return
            query = {name: values[0] for name, values in parse_qs(parts.query).items()}
            if parts.path.startswith("/oauth2/"):
                self.oauth(parts.path, query, form)
            elif parts.path.startswith("/signed/"):
                assert "Authorization" not in self.headers, "a secret went to another host"
                self.blob(parts.path.removeprefix("/signed/"))
            elif self.admitted():
                self.route(parts.path, query)

        do_GET = do_HEAD = do_PUT = do_POST = do_PATCH = handle_one  # noqa: N815

        def admitted(self) -> bool:
            said = self.headers.get("Authorization", "")
            pair = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
            rights = "pull" if self.command in ("GET", "HEAD") else "pull,push"
            scope = f"repository:edge/pump:{rights}"
            if acr.auth is None or (acr.auth == "basic" and said == f"Basic {pair}"):
                return True
            if acr.auth == "basic":
                self.error(401, "UNAUTHORIZED", WWW_Authenticate='Basic realm="registry"')
                return False
            if rights in acr.tokens.get(said.removeprefix("Bearer "), ""):
                return True
            realm = f"http://127.0.0.1:{acr.port}/oauth2/token"
            asks = f'Bearer realm="{realm}",service="127.0.0.1:{acr.port}",scope="{scope}"'
            self.error(401, "UNAUTHORIZED", WWW_Authenticate=asks)
            return False

        def oauth(self, path: str, query: dict[str, str], form: dict[str, str]) -> None:
            pair = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
            if path == "/oauth2/exchange" and self.command == "POST":
                good = form.get("grant_type") == "access_token" and form.get("access_token") == ENTRA_TOKEN
                good = good and form.get("service") == f"127.0.0.1:{acr.port}"
                name, made = "refresh_token", lambda: acr.token("refresh")
            elif self.command == "POST":
                good = form.get("grant_type") == "refresh_token" and form.get("refresh_token") in acr.tokens
                name, made = "access_token", lambda: acr.token("access", form["scope"])
            else:
                good = acr.auth == "anonymous" or self.headers.get("Authorization") == f"Basic {pair}"
                name, made = "access_token", lambda: acr.token("access", query["scope"])
            if good:
                self.answer(200, json.dumps({name: made()}).encode())
            else:
                self.error(401, "UNAUTHORIZED")

        def route(self, path: str, query: dict[str, str]) -> None:
            if match := UPLOADS.fullmatch(path):
                self.upload(match[1], match[2], query)
            elif match := BLOB.fullmatch(path):
                if acr.elsewhere and self.command == "GET":
                    where = f"http://localhost:{acr.port}/signed/{match[2]}?sig=secret"
                    self.answer(307, Location=where)
                else:
                    self.blob(match[2])
            elif match := MANIFEST.fullmatch(path):
                self.manifest(match[2])
            elif TAGS.fullmatch(path):
                self.listed(path, query)
            else:
                self.error(404, "NAME_UNKNOWN")

        def blob(self, digest: str) -> None:
            data = acr.blobs.get(digest)
            if data is None:
                self.error(404, "BLOB_UNKNOWN")
                return
            offset, status, headers = 0, 200, {}
            if acr.ranges and (asked := self.headers.get("Range")):
                offset, status = int(asked.removeprefix("bytes=").rstrip("-")), 206
                headers = {"Content_Range": f"bytes {offset}-{len(data) - 1}/{len(data)}"}
            body = data[offset:]
            if self.command == "GET" and acr.cut_after:
                cut = acr.cut_after.pop(0)
                length = len(body) if cut >= 0 else abs(cut)
                body = body[: abs(cut)]
                self.close_connection = True
                self.answer(status, body, Content_Length=str(length), **headers)
            else:
                self.answer(status, body, **headers)
            if self.command == "GET":
                acr.sent[digest] += len(body)

        def manifest(self, reference: str) -> None:
            if self.command == "PUT":
                document = json.loads(self.data)
                parts = [*document.get("layers", []), *filter(None, [document.get("config")])]
                if missing := [part for part in parts if part["digest"] not in acr.blobs]:
                    self.error(404, "MANIFEST_BLOB_UNKNOWN", X_Missing=missing[0]["digest"])
                    return
                digest = f"sha256:{hashlib.sha256(self.data).hexdigest()}"
                acr.manifests[digest] = self.data
                acr.tags[reference] = digest
                subject = document.get("subject")
                listed = {"OCI_Subject": subject["digest"]} if subject and acr.referrers else {}
                self.answer(201, Docker_Content_Digest=digest, **listed)
                return
            digest = acr.tags.get(reference, reference)
            if digest not in acr.manifests:
                self.error(404, "MANIFEST_UNKNOWN")
                return
            data = acr.manifests[digest]
            kind = json.loads(data).get("mediaType", "application/json") if data[:1] == b"{" else "text/plain"
            self.answer(200, data, Content_Type=kind, Docker_Content_Digest=digest)

        def upload(self, name: str, number: str, query: dict[str, str]) -> None:
            if self.command == "POST":
                number = str(len(acr.uploads) + 1)
                acr.uploads[number] = bytearray()
            held = acr.uploads[number]
            if self.command in ("PATCH", "PUT") and self.data:
                said = self.headers.get("Content-Range")
                if said and int(said.split("-")[0]) != len(held):
                    self.error(416, "RANGE_INVALID")
                    return
                held += self.data
            if self.command == "PUT":
                if f"sha256:{hashlib.sha256(held).hexdigest()}" != query["digest"]:
                    self.error(400, "DIGEST_INVALID")
                    return
                acr.blobs[query["digest"]] = bytes(held)
                self.answer(201)
                return
            status = {"POST": 202, "PATCH": 202, "GET": 204}[self.command]
            reached = f"0-{max(0, len(held) - 1)}"
            self.answer(status, Location=f"/v2/{name}/blobs/uploads/{number}?state=x", Range=reached)

        def listed(self, path: str, query: dict[str, str]) -> None:
            names = sorted(name for name in acr.tags if name > query.get("last", ""))
            now = names[: acr.page]
            following = f'<{path}?last={now[-1]}&n={acr.page}>; rel="next"' if len(names) > len(now) else ""
            body = json.dumps({"name": "edge/pump", "tags": now}).encode()
            self.answer(200, body, **({"Link": following} if following else {}))

    return Handler
