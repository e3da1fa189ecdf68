"""A registry, or whoever answers in its name, that means no good: what it learns, what it can do to us."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from edge_ai_assets.delivery import ceremony, image, metadata, push, signing
from edge_ai_assets.delivery.errors import DeliveryError, DeniedError, RollbackError
from edge_ai_assets.delivery.layout import Layout
from edge_ai_assets.delivery.manifest import Descriptor, digest_of
from edge_ai_assets.delivery.sign_in import Entra, Password
from edge_ai_assets_tests.contract.acr import ENTRA_TOKEN, PASSWORD, USER, Acr, Canned
from edge_ai_assets_tests.delivery.test_registry import Identity, client

DATA = os.urandom(1000)
PART = Descriptor("application/octet-stream", digest_of(DATA), len(DATA))
ME = Password(USER, PASSWORD)


class Stranger(ThreadingHTTPServer):
    """Another host, to which the registry sends us. It asks who we are, and has a place to be told."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.asked: list[tuple[str, str | None, bytes]] = []
        """Path, Authorization and body."""
        self.given = 0
        """Bytes of an answer without end that were taken."""

    @property
    def address(self) -> str:
        return f"http://localhost:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    server: Stranger
    protocol_version = "HTTP/1.1"

    def log_message(self, *arguments: Any) -> None: ...

    def do_GET(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.server.asked.append((self.path, self.headers.get("Authorization"), body))
        if self.path == "/endless":
            self.close_connection = True
            self.send_response(307)
            self.send_header("Location", "/blob")
            self.end_headers()
            try:
                while self.server.given < 200 << 20:
                    self.wfile.write(bytes(1 << 20))
                    self.server.given += 1 << 20
            except OSError:
                pass  # it was left
            return
        realm = f"http://127.0.0.1:{self.server.server_address[1]}/token"
        self.send_response(401)
        self.send_header("WWW-Authenticate", f'Bearer realm="{realm}",service="s",scope="x"')
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_POST = do_GET  # noqa: N815


@pytest.fixture
def stranger() -> Iterator[Stranger]:
    with Stranger() as running:
        threading.Thread(target=running.serve_forever, args=(0.01,), daemon=True).start()
        yield running
        running.shutdown()


@pytest.mark.parametrize("auth", ["basic", "bearer"])
def test_a_host_that_we_are_sent_to_does_not_learn_who_we_are(stranger, tmp_path, auth):
    """It may ask, and name a place where it wants the password: it is not the registry."""
    with Acr(auth=auth) as acr:
        acr.canned = [Canned("GET", "/blobs/", 307, {"Location": f"{stranger.address}/blob"}, times=9)]
        with pytest.raises(DeniedError):
            client(acr, ME).give(PART, Layout(tmp_path / "into"))
    assert stranger.asked and {(path, said) for path, said, _ in stranger.asked} == {("/blob", None)}


def test_a_token_of_entra_stays_with_the_registry(stranger):
    with Acr(auth="entra") as acr:
        acr.canned = [Canned("POST", "exchange", 307, {"Location": f"{stranger.address}/blob"}, times=9)]
        with pytest.raises(DeniedError):
            client(acr, Entra(Identity())).head("latest")
    assert not any(ENTRA_TOKEN.encode() in body for _, _, body in stranger.asked)


def test_an_answer_that_sends_us_on_and_has_no_end_is_left(stranger, tmp_path):
    with Acr() as acr:
        acr.canned = [Canned("GET", "/blobs/", 307, {"Location": f"{stranger.address}/endless"}, times=9)]
        with pytest.raises(DeliveryError):
            client(acr).give(PART, Layout(tmp_path / "into"))
    assert stranger.given < 50 << 20  # what its system and ours hold


@pytest.mark.parametrize(
    "body", [b"[]", b'"x"', b"<html>", b'{"NAME": {}}', b'{"NAME": "a\\nb"}', b'{"NAME": 1' + bytes(2 << 20)]
)
@pytest.mark.parametrize("auth", ["anonymous", "bearer", "entra"])
def test_what_is_no_token_is_an_error_of_delivery(body, auth):
    who = {"anonymous": None, "bearer": ME, "entra": Entra(Identity())}[auth]
    name = b"refresh_token" if auth == "entra" else b"access_token"
    with Acr(auth=auth) as acr:
        acr.canned = [
            Canned(m, "oauth2", 200, {}, body.replace(b"NAME", name), times=9) for m in ("GET", "POST")
        ]
        with pytest.raises(DeliveryError):
            client(acr, who).head("latest")


@pytest.mark.parametrize(
    "canned",
    [
        Canned("HEAD", "latest", 401, {"WWW_Authenticate": 'Bearer realm="https://[",service="x"'}, times=9),
        Canned("HEAD", "latest", 307, {"Location": "https://["}, times=9),
    ],
)
def test_an_address_that_is_none_is_an_error_of_delivery(canned):
    with Acr() as acr:
        acr.canned = [canned]
        with pytest.raises(DeliveryError):
            client(acr).head("latest")


def test_so_is_one_of_more_tags_or_of_an_upload(tmp_path):
    layout = Layout(tmp_path / "layout")
    with Acr() as acr:
        acr.canned = [
            Canned("GET", "tags", 200, {"Link": '<https://[>; rel="next"'}, b'{"tags": ["a"]}'),
            Canned("POST", "uploads", 202, {"Location": "https://["}),
        ]
        with pytest.raises(DeliveryError):
            client(acr).names()
        with pytest.raises(DeliveryError):
            push._blob(layout, layout.put(DATA), client(acr), push.Pushed())


@pytest.fixture
def released(
    registry: Layout, publish: Callable[..., Any], make_model: Any, tmp_path: Any
) -> tuple[Layout, Any]:
    """A registry's folder with one release, and who signs for it."""
    authority = ceremony.authority(tmp_path / "azure")
    own = signing.load_private(tmp_path / "azure" / "release.pem")
    made = image.build(make_model("one"), registry, annotations={})
    publish(registry, "one", image=made, key=own, authority=authority)
    return registry, authority


def _renew(layout: Layout, tmp_path: Any, days: int) -> None:
    """Sign the metadata anew: a lease of another length is due at once."""
    signer = ceremony.authority(tmp_path / "azure", timedelta(days=days))
    with layout.editing() as tags:
        tags[metadata.TAG] = signer.current(layout, tags)


def test_a_copy_from_before_the_lease_was_renewed_does_not_take_it_back(released, tmp_path):
    """Sites have the newer metadata: they would refuse the registry until the copy's came that far."""
    layout, _ = released
    copy = Layout(tmp_path / "copy")
    shutil.copytree(layout.path, copy.path)
    _renew(layout, tmp_path, 90)
    with Acr() as acr:
        push.push(layout, client(acr))
        before = dict(acr.tags)
        with pytest.raises(RollbackError, match="newer trust metadata"):
            push.push(copy, client(acr))
        _renew(copy, tmp_path, 80)  # as new as that there, and another
        with pytest.raises(DeliveryError, match="other trust metadata"):
            push.push(copy, client(acr))
        assert acr.tags == before
        _renew(layout, tmp_path, 70)
        assert push.push(layout, client(acr)).tags == 1


def test_of_two_that_push_at_once_the_newer_metadata_stays(released, tmp_path):
    """A run pushes its release while the sensor pushes the lease that it has renewed."""
    layout, _ = released

    def other() -> None:
        _renew(layout, tmp_path, 90)
        push.push(layout, client(acr))

    with Acr() as acr:
        registry, thread = client(acr), threading.Thread(target=other)
        ask = registry.head

        def head(name: str) -> Any:
            if thread.ident is None:
                thread.start()
                thread.join(0.5)  # which it does not reach when one waits for the other
            return ask(name)

        registry.head = head  # type: ignore[method-assign]
        push.push(layout, registry)
        thread.join()
        assert acr.tags[metadata.TAG] == layout.tags()[metadata.TAG].digest


def test_trust_metadata_that_is_damaged_there_is_replaced(released):
    layout, _ = released
    with Acr() as acr:
        push.push(layout, client(acr))
        acr.manifests[acr.tags[metadata.TAG]] = b"{"
        acr.tags["trust"] = next(iter(acr.manifests))
        push.push(layout, client(acr))
        assert acr.tags[metadata.TAG] == layout.tags()[metadata.TAG].digest
