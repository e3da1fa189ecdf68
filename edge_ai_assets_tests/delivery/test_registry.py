"""A registry elsewhere: what is pushed, pulled, resumed and refused, against a registry in memory."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edge_ai_assets.delivery import ceremony, image, push, release, signing
from edge_ai_assets.delivery.distribution import Repository
from edge_ai_assets.delivery.errors import (
    DeliveryError,
    DeniedError,
    ForeignError,
    MismatchError,
    MissingError,
    RollbackError,
    TooLargeError,
    UnreachableError,
    UntrustedError,
)
from edge_ai_assets.delivery.layout import Layout
from edge_ai_assets.delivery.manifest import Descriptor, digest_of
from edge_ai_assets.delivery.push import Pushed
from edge_ai_assets.delivery.registry import Registry
from edge_ai_assets.delivery.sign_in import ENTRA, Entra, Password
from edge_ai_assets.delivery.store import SiteStore
from edge_ai_assets.delivery.trust import Trust
from edge_ai_assets_tests.contract.acr import ENTRA_TOKEN, PASSWORD, USER, Acr, Canned
from edge_ai_assets_tests.delivery.test_delivery_base import runtime_image

MODEL = os.urandom(300_000)


class Waited(list[float]):
    """Seconds that a client would have waited."""

    def __call__(self, seconds: float) -> None:
        self.append(seconds)


class Identity:
    """A credential of azure-identity's kind."""

    def __init__(self, token: str = ENTRA_TOKEN) -> None:
        self.token = token

    def get_token(self, *scopes: str, **_: Any) -> Any:
        from azure.core.credentials import AccessToken

        assert scopes == (ENTRA,)
        return AccessToken(self.token, 2**33)


def client(acr: Acr, credential: Any = None, **options: Any) -> Registry:
    return Registry(Repository(acr.repository, credential, read_seconds=5.0, **options))


@pytest.fixture
def acr() -> Iterator[Acr]:
    with Acr() as running:
        yield running


@pytest.fixture
def authority(tmp_path: Any) -> Any:
    return ceremony.authority(tmp_path / "azure")


@pytest.fixture
def released(
    registry: Layout, publish: Callable[..., Any], make_model: Any, authority: Any, tmp_path: Any
) -> Any:
    """Publishes the next release, with trust metadata, of a model that is no single packet."""

    def run(content: str = "one") -> Layout:
        own = signing.load_private(tmp_path / "azure" / "release.pem")
        model = make_model(content)
        (model / "model.onnx").write_bytes(content.encode() + MODEL)
        made = image.build(model, registry, annotations={})
        publish(registry, content, image=made, key=own, authority=authority)
        return registry

    return run


@pytest.fixture
def site(tmp_path: Any, authority: Any) -> tuple[SiteStore, Trust]:
    store = SiteStore(tmp_path / "site")
    return store, Trust(authority.root, store.layout)


def layer_of(layout: Layout) -> str:
    """The model's layer: the largest blob."""
    return max(
        layout.blobs(), key=lambda digest: layout.path.joinpath("blobs", "sha256", digest[7:]).stat().st_size
    )


class TestPush:
    def test_again_sends_nothing_and_asks_twice(self, acr, released):
        layout = released()
        first = push.push(layout, client(acr))
        assert first.tags == 4 and first.bytes > len(MODEL)  # image, release, trust, latest
        asked = len(acr.asked)
        assert push.push(layout, client(acr)) == Pushed()
        assert [each.method for each in acr.asked[asked:]] == ["HEAD", "HEAD"]

    def test_only_what_is_new_is_sent(self, acr, released):
        push.push(released("one"), client(acr))
        second = push.push(released("two"), client(acr))
        assert second.bytes < len(MODEL) + (64 << 10)
        assert acr.count("PUT", "manifests/release-1") == 1

    def test_tags_come_after_content_and_latest_last(self, acr, released):
        push.push(released(), client(acr))
        puts = [asked.path.rpartition("/")[2] for asked in acr.asked if asked.method == "PUT"]
        named = [name for name in puts if "digest=" not in name and not name.startswith("sha256-")]
        assert named[-2:] == ["trust", "latest"]
        assert named.index("image-1") < named.index("release-1")

    def test_digests_there_are_those_here(self, acr, released):
        layout = released()
        push.push(layout, client(acr))
        assert all(acr.tags[name] == top.digest for name, top in layout.tags().items())

    def test_an_older_copy_does_not_overwrite(self, acr, released, tmp_path):
        import shutil

        shutil.copytree(released("one").path, tmp_path / "copy")
        push.push(released("two"), client(acr))
        before = dict(acr.tags)
        with pytest.raises(RollbackError, match=r"has release-2 and .* has not: is this folder an old copy"):
            push.push(Layout(tmp_path / "copy"), client(acr))
        assert acr.tags == before

    def test_another_release_of_the_same_version_is_refused(self, acr, released):
        layout = released()
        acr.manifests[digest_of(b"{}")] = b"{}"
        acr.tags["release-1"] = digest_of(b"{}")
        with pytest.raises(ForeignError, match="another release 1"):
            push.push(layout, client(acr))

    def test_a_damaged_blob_is_not_pushed(self, acr, released):
        layout = released()
        path = layout.path / "blobs" / "sha256" / layer_of(layout)[7:]
        path.write_bytes(path.read_bytes()[:-1] + b"!")
        with pytest.raises(MismatchError, match="damaged"):
            push.push(layout, client(acr))
        assert "latest" not in acr.tags and "image-1" not in acr.tags

    @pytest.mark.parametrize("referrers", [False, True])
    def test_what_is_about_an_image_is_listed(self, released, referrers):
        with Acr(referrers=referrers) as acr:
            layout = released()
            push.push(layout, client(acr))
            push.push(layout, client(acr))
            tag = layout.tags()["image-1"].digest.replace(":", "-")
            assert (tag in acr.tags) is not referrers
            if not referrers:
                (entry,) = json.loads(acr.manifests[acr.tags[tag]])["manifests"]
                assert entry["digest"] == layout.tags()["release-1"].digest
                assert entry["artifactType"] == release.ARTIFACT

    @settings(
        max_examples=25,
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
        deadline=None,
    )
    @given(size=st.integers(1, 700), cut=st.integers(0, 99))
    def test_a_cut_blob_goes_on_in_pieces(self, tmp_path_factory, size, cut, monkeypatch):
        """Whatever its size and wherever the cut: what the registry has is not sent again."""
        monkeypatch.setattr(push, "PIECE", 100)
        layout = Layout(tmp_path_factory.mktemp("layout"))
        data = os.urandom(size)
        part = layout.put(data)
        with Acr() as acr:
            acr.take_only = [cut]
            done = Pushed()
            push._blob(layout, part, client(acr), done)
            assert acr.blobs[part.digest] == data
            if size > 100:
                taken = sum(
                    int(asked.headers["Content-Length"]) for asked in acr.asked if asked.method == "PATCH"
                )
                # A registry says 0-0 of nothing and of one byte alike.
                assert taken == size - (cut if cut > 1 else 0)


class TestPull:
    def test_a_site_gets_what_was_released(self, acr, released, site):
        store, trust = site
        push.push(released(), client(acr))
        found = store.fetch(client(acr), trust)
        assert (store.path(found) / "model.onnx").read_bytes() == b"one" + MODEL

    def test_again_nothing_large_is_asked_for(self, acr, released, site):
        store, trust = site
        push.push(released(), client(acr))
        store.fetch(client(acr), trust)
        before = acr.sent.total()
        store.fetch(client(acr), trust)
        assert acr.sent.total() - before < 64 << 10

    @settings(
        max_examples=30,
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
        deadline=None,
    )
    @given(cuts=st.lists(st.integers(1, 60), max_size=4), ranges=st.booleans(), early=st.booleans())
    def test_a_cut_blob_goes_on(self, tmp_path_factory, cuts, ranges, early):
        """As long as each time brings something; nothing that came is asked for again where ranges are."""
        data = bytes(range(256))
        part = Descriptor("application/octet-stream", digest_of(data), len(data))
        into = Layout(tmp_path_factory.mktemp("into"))
        with Acr(ranges=ranges) as acr:
            acr.blobs[part.digest] = data
            # Without ranges all comes again: each answer must get further.
            acr.cut_after = cuts if ranges else [sum(cuts[: at + 1]) for at in range(len(cuts))]
            if early:  # what it says is whole, and is not
                acr.cut_after = [-cut for cut in acr.cut_after]
            client(acr).give(part, into)
            assert into.get(part.digest, max_bytes=256) == data
            if ranges:
                assert acr.sent[part.digest] == 256

    def test_what_came_stays_when_the_registry_is_gone(self, acr, released, site):
        """The next time, in another process, it goes on there."""
        store, trust = site
        layout = released()
        push.push(layout, client(acr))
        large = layer_of(layout)
        whole = len(acr.blobs[large])
        cut = Canned("GET", large, 200, {"Content_Length": str(whole)}, acr.blobs[large][:200_000])
        acr.canned = [cut, Canned("GET", large, 503, {"Retry_After": "1000"})]
        with pytest.raises(UnreachableError, match="too busy or out of order"):
            store.fetch(client(acr), trust)
        assert store.releases() == [] and not store.layout.has(large) and not store.layout.tags()
        assert SiteStore(store.folder).fetch(client(acr), trust).version == 1
        assert acr.sent[large] == whole - 200_000

    def test_what_came_of_a_release_that_was_overtaken_does_not_stay(self, acr, released, site):
        store, trust = site
        layout = released("one")
        push.push(layout, client(acr))
        large = layer_of(layout)
        cut = Canned("GET", large, 200, {"Content_Length": "300000"}, acr.blobs[large][:200_000])
        acr.canned = [cut, Canned("GET", large, 503, {"Retry_After": "1000"})]
        with pytest.raises(UnreachableError):
            store.fetch(client(acr), trust)
        assert list(store.layout.path.rglob("*.partial"))
        push.push(released("two"), client(acr))
        assert store.fetch(client(acr), trust).version == 2
        assert not list(store.layout.path.rglob("*.partial"))

    def test_a_damaged_beginning_is_thrown_away(self, acr, tmp_path):
        data = os.urandom(1000)
        part = Descriptor("application/octet-stream", digest_of(data), len(data))
        acr.blobs[part.digest] = data
        into = Layout(tmp_path / "into")
        with into.writing():
            (into.path / "ingest" / f"{part.digest[7:]}.partial").write_bytes(b"x" * 500)
        with pytest.raises(MismatchError):
            client(acr).give(part, into)
        client(acr).give(part, into)
        assert into.get(part.digest, max_bytes=1000) == data

    def test_a_larger_blob_than_announced_is_read_no_further(self, acr, tmp_path):
        data = bytes(1000)
        part = Descriptor("application/octet-stream", digest_of(data), 10)
        acr.blobs[part.digest] = data
        with pytest.raises(MismatchError, match="not 10"):
            client(acr).give(part, Layout(tmp_path / "into"))
        assert not list((tmp_path / "into" / "ingest").glob("*.partial"))

    @pytest.mark.parametrize("what", ["model", "envelope", "trust", "image"])
    def test_tampered_content_is_refused_and_nothing_changes(self, acr, released, site, what):
        store, trust = site
        push.push(released("one"), client(acr))
        store.fetch(client(acr), trust)
        layout = released("two")
        push.push(layout, client(acr))
        tags = layout.tags()
        envelope = release.find(layout, 2, trust_of(layout, trust)).blobs[1].digest
        if what in ("image", "trust"):
            digest, held = tags["image-2" if what == "image" else "trust"].digest, acr.manifests
        else:
            digest, held = (
                (layer_of_release(acr, tags["image-2"].digest) if what == "model" else envelope),
                acr.blobs,
            )
        held[digest] = held[digest][:-3] + bytes([held[digest][-3] ^ 1]) + held[digest][-2:]
        with pytest.raises(DeliveryError):
            store.fetch(client(acr), trust)
        assert [each.version for each in store.releases()] == [1]
        assert not store.layout.tags().keys() & {"release-2", "image-2"}

    def test_an_older_registry_is_refused(self, acr, released, site):
        store, trust = site
        push.push(released("one"), client(acr))
        old = dict(acr.tags)
        push.push(released("two"), client(acr))
        store.fetch(client(acr), trust)
        acr.tags = old
        with pytest.raises(RollbackError):
            store.fetch(client(acr), trust)

    def test_a_release_that_is_not_listed_is_refused(self, acr, released, site):
        """Mix and match: the trust metadata of before, the release of after."""
        store, trust = site
        push.push(released("one"), client(acr))
        old = acr.tags["trust"]
        push.push(released("two"), client(acr))
        acr.tags["trust"] = old
        with pytest.raises(UntrustedError, match="not listed"):
            store.fetch(client(acr), trust)

    def test_a_document_without_end_is_refused(self, acr):
        acr.manifests[digest_of(b"x")] = bytes(5 << 20)
        acr.tags["latest"] = digest_of(b"x")
        with pytest.raises(TooLargeError, match="more than the 4194304 bytes"):
            client(acr).resolve("latest")

    def test_no_tag(self, acr):
        assert client(acr).head("latest") is None
        with pytest.raises(MissingError, match="no tag 'latest'"):
            client(acr).resolve("latest")

    @pytest.mark.parametrize("page", [1, 3, 1000])
    def test_all_tags_are_listed(self, page):
        with Acr(page=page) as acr:
            acr.tags = {f"release-{number}": digest_of(b"") for number in range(1, 8)}
            assert release.versions(client(acr).names()) == list(range(1, 8))

    @pytest.mark.parametrize("runs_images", [False, True])
    def test_only_a_container_engine_needs_the_layers_below(
        self, acr, registry, publish, make_model, tmp_path, runs_images
    ):
        below = runtime_image(registry)
        made = image.build(make_model("one"), registry, annotations={}, base=below)
        publish(registry, image=made)
        keys = [signing.load_public(signing.public_path(tmp_path / "keys" / "azure.pem"))]
        push.push(registry, client(acr))
        store = SiteStore(tmp_path / "site", runs_images=runs_images)
        store.fetch(client(acr), keys)
        lower = json.loads(acr.manifests[made])["layers"][0]["digest"]
        assert store.layout.has(lower) is runs_images
        assert lower in store.inventory()
        assert acr.sent[lower] == (len(acr.blobs[lower]) if runs_images else 0)


class TestWho:
    @pytest.mark.parametrize(
        ("auth", "who"),
        [
            ("basic", Password(USER, PASSWORD)),
            ("bearer", Password(USER, PASSWORD)),
            ("anonymous", None),
            ("entra", Entra(Identity())),
        ],
    )
    def test_push_and_pull(self, released, site, auth, who):
        store, trust = site
        with Acr(auth=auth) as acr:
            push.push(released(), client(acr, who))
            assert store.fetch(client(acr, who), trust).version == 1
            if auth == "entra":
                exchange = next(each.form for each in acr.asked if each.path == "/oauth2/exchange")
                assert exchange["service"] == f"127.0.0.1:{acr.port}"

    @pytest.mark.parametrize("auth", ["bearer", "entra"])
    def test_a_token_that_expired_is_renewed(self, released, auth):
        who = Entra(Identity()) if auth == "entra" else Password(USER, PASSWORD)
        with Acr(auth=auth) as acr:
            registry = client(acr, who)
            push.push(released("one"), registry)
            acr.expire()
            assert push.push(released("two"), registry).tags == 4

    @pytest.mark.parametrize(
        ("auth", "who", "says"),
        [
            ("basic", None, "wants a user and a password"),
            ("basic", Password(USER, "wrong-secret"), "does not let us"),
            ("bearer", Password(USER, "wrong-secret"), "refuses the credential"),
            ("bearer", None, "refuses the credential"),
            ("entra", Entra(Identity("wrong-secret")), "refuses the credential"),
        ],
    )
    def test_who_is_not_let_in_hears_why(self, auth, who, says, caplog):
        caplog.set_level(logging.DEBUG)
        with Acr(auth=auth) as acr, pytest.raises(DeniedError, match=says) as refused:
            client(acr, who).head("latest")
        assert "wrong-secret" not in f"{refused.value}{caplog.text}{who!r}"
        assert refused.value.status_code in (401, None)

    @pytest.mark.parametrize("auth", ["bearer", "anonymous", "entra"])
    def test_a_token_service_that_is_out_of_order_is_no_refusal(self, auth):
        who = {"bearer": Password(USER, PASSWORD), "anonymous": None, "entra": Entra(Identity())}[auth]
        with Acr(auth=auth) as acr:
            acr.canned = [Canned(method, "oauth2", 503, times=9) for method in ("GET", "POST")]
            with pytest.raises(UnreachableError, match=r"which gives its tokens, is too busy .* \(503\)"):
                client(acr, who).head("latest")

    @pytest.mark.parametrize(
        ("error", "becomes"),
        [("ClientAuthenticationError", DeniedError), ("ServiceRequestError", UnreachableError)],
    )
    def test_entra_that_gives_no_token(self, error, becomes):
        from azure.core import exceptions

        class Without:
            def get_token(self, *_: str, **__: Any) -> Any:
                raise getattr(exceptions, error)("no managed identity here\nand a long tale")

        with (
            Acr(auth="entra") as acr,
            pytest.raises(becomes, match=r"gives no token for it: no managed identity here$"),
        ):
            client(acr, Entra(Without())).head("latest")

    def test_another_host_gets_blobs_asked_for_without_our_token(self, released, site):
        """The stub fails when it does."""
        store, trust = site
        with Acr(auth="bearer", elsewhere=True) as acr:
            push.push(released(), client(acr, Password(USER, PASSWORD)))
            assert store.fetch(client(acr, Password(USER, PASSWORD)), trust).version == 1

    def test_a_token_is_not_asked_for_in_clear(self, acr):
        asks = 'Bearer realm="http://tokens.example/token",service="x"'
        acr.canned = [Canned("HEAD", "latest", 401, {"WWW_Authenticate": asks}, times=9)]
        with pytest.raises(DeniedError, match="without TLS: refused"):
            client(acr, Password(USER, PASSWORD)).head("latest")


class TestOutage:
    @pytest.mark.parametrize("status", [429, 500, 503])
    def test_one_that_is_busy_is_asked_again_when_it_says(self, acr, status):
        waited = Waited()
        acr.canned = [Canned("HEAD", "latest", status, {"Retry_After": "7"}, times=2)]
        assert client(acr, sleep=waited).head("latest") is None
        assert waited == [7.0, 7.0]

    def test_one_that_stays_busy_is_left(self, acr):
        waited = Waited()
        acr.canned = [Canned("HEAD", "latest", 503, times=99)]
        with pytest.raises(UnreachableError, match="too busy or out of order"):
            client(acr, sleep=waited).head("latest")
        assert waited == [1.0, 2.0, 4.0]

    def test_one_that_asks_for_an_hour_is_left_at_once(self, acr):
        waited = Waited()
        acr.canned = [Canned("HEAD", "latest", 429, {"Retry_After": "3600"}, times=99)]
        with pytest.raises(UnreachableError):
            client(acr, sleep=waited).head("latest")
        assert waited == []

    def test_one_that_is_gone(self):
        with Acr() as acr:
            registry = client(acr)
        with pytest.raises(UnreachableError, match="out of reach"):
            registry.head("latest")

    def test_a_portal_is_no_registry(self, acr):
        acr.canned = [Canned("HEAD", "latest", 418, body=b"<html>welcome aboard", times=9)]
        with pytest.raises(UnreachableError, match="a portal maybe"):
            client(acr).head("latest")

    @pytest.mark.parametrize(
        "name", ["registry", "host/Path", "host/a:tag", "https://host/a", "host//a", "host/a/", ""]
    )
    def test_names_that_are_none(self, name):
        with pytest.raises(ValueError, match="must be HOST/PATH"):
            Repository(name)


def trust_of(layout: Layout, trust: Trust) -> Any:
    return Trust(trust.root, layout).held()


def layer_of_release(acr: Acr, image: str) -> str:
    return json.loads(acr.manifests[image])["layers"][-1]["digest"]
