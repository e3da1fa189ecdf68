"""Releases through a real registry server: there and back, cut, with a password, with TLS, tampered with."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edge_ai_assets.delivery import ceremony, image, push, release, signing
from edge_ai_assets.delivery.distribution import Repository
from edge_ai_assets.delivery.errors import DeliveryError, DeniedError, UnreachableError
from edge_ai_assets.delivery.layout import Layout
from edge_ai_assets.delivery.push import Pushed
from edge_ai_assets.delivery.registry import Registry
from edge_ai_assets.delivery.sign_in import Password
from edge_ai_assets.delivery.store import SiteStore
from edge_ai_assets.delivery.trust import Trust
from edge_ai_assets_tests.integration import docker_registry
from edge_ai_assets_tests.integration.docker_registry import PASSWORD, USER, Server
from edge_ai_assets_tests.integration.faults import Proxy

pytestmark = pytest.mark.integration

MODEL = 24 << 20
"""Bytes: more than one piece of a push, and much more than sockets hold."""


class Azure:
    """Publishes into a layout."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.layout = folder, Layout(folder / "registry")
        self.authority = ceremony.authority(folder / "keys")

    def release(self, number: int, size: int = MODEL) -> release.Release:
        model = self.folder / f"model-{number}"
        model.mkdir()
        for name in image.FILES:
            (model / name).write_text(f"{name} {number}\n")
        (model / "model.onnx").write_bytes(os.urandom(size))
        return release.publish(
            self.layout,
            image=image.build(model, self.layout, annotations={}),
            usecase="pump",
            run_id="run",
            data_version="v1",
            metrics={},
            key=signing.load_private(self.folder / "keys" / "release.pem"),
            authority=self.authority,
        )

    def site(self, name: str) -> tuple[SiteStore, Trust]:
        store = SiteStore(self.folder / name)
        return store, Trust(self.authority.root, store.layout)

    def layer(self, number: int) -> str:
        top = self.layout.tags()[f"image-{number}"]
        return str(json.loads(self.layout.get(top.digest, max_bytes=1 << 20))["layers"][-1]["digest"])


@pytest.fixture
def azure(tmp_path: Path) -> Azure:
    made = Azure(tmp_path / "azure")
    made.release(1)
    return made


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with docker_registry.serving(tmp_path_factory.mktemp("registry")) as running:
        yield running


@pytest.fixture
def repository(server: Server, tmp_path: Path) -> str:
    """One of its own for each test."""
    return f"127.0.0.1:{server.port}/edge/{tmp_path.name.replace('_', '.').lower()}"


def client(repository: str, port: int | None = None, **options: Any) -> Registry:
    if port is not None:
        repository = f"127.0.0.1:{port}/{repository.partition('/')[2]}"
    return Registry(Repository(repository, read_seconds=options.pop("read_seconds", 20.0), **options))


def skopeo(*arguments: str | Path) -> str:
    docker_registry.need("skopeo")
    done = subprocess.run(["skopeo", *map(str, arguments)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_release_goes_there_and_back_and_the_next_is_the_model_and_little_more(azure, repository):
    assert push.push(azure.layout, client(repository)).bytes > MODEL
    assert push.push(azure.layout, client(repository)) == Pushed()
    store, trust = azure.site("bergen")
    assert store.fetch(client(repository), trust).version == 1
    azure.release(2)
    update = push.push(azure.layout, client(repository))
    assert update.bytes < MODEL + (64 << 10)
    found = store.fetch(client(repository), trust)
    model = azure.folder / "model-2" / "model.onnx"
    assert (store.path(found) / "model.onnx").read_bytes() == model.read_bytes()


def test_a_pull_that_is_cut_goes_on_there(azure, server, repository):
    """Of the layer no byte comes twice but what was on its way, though the site's process is another one."""
    push.push(azure.layout, client(repository))
    store, trust = azure.site("bergen")
    cut = 10 << 20
    with Proxy(server.port) as road:
        road.back_after = cut
        with pytest.raises(UnreachableError, match="pulling blob"):
            store.fetch(client(repository, road.port), trust)
    partial = next((store.folder / "store" / "ingest").glob("*.partial")).stat().st_size
    assert store.releases() == [] and cut - (1 << 20) < partial < cut
    with Proxy(server.port) as road:
        assert SiteStore(store.folder).fetch(client(repository, road.port), trust).version == 1
        print(f"cut at {road.came=} {partial=}")
        assert road.came < MODEL - partial + (64 << 10)


def test_a_registry_that_is_killed_in_a_pull_and_comes_back(azure, tmp_path):
    with docker_registry.serving(tmp_path / "server") as server:
        push.push(azure.layout, client(server.repository))
        store, trust = azure.site("bergen")
        with Proxy(server.port) as road:
            real, given = Registry.give, []

            def give(self: Registry, part: Any, into: Any) -> None:
                given.append(part)
                if part.size > MODEL:
                    server.kill()
                real(self, part, into)

            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(Registry, "give", give)
                with pytest.raises(UnreachableError):
                    store.fetch(client(server.repository, road.port), trust)
        assert store.releases() == []
        server.start()
        assert store.fetch(client(server.repository), trust).version == 1


def test_a_push_that_is_cut_goes_on_there(azure, server, repository):
    """This server gives up an upload that is cut within a piece, and that blob alone is begun anew."""
    with Proxy(server.port, cut_after=20 << 20) as road:
        real = Proxy._serve

        def serve(self: Proxy, end: Any) -> None:
            if self.cut_after is not None and self._passed >= self.cut_after:
                self.restore()
            real(self, end)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Proxy, "_serve", serve)
            done = push.push(azure.layout, client(repository, road.port))
        assert done.tags == 4
        sent = len(road.sent)
        print(f"resent after a cut: {sent - done.bytes}")
        assert sent < done.bytes + (20 << 20) + (64 << 10)
    azure.release(2)
    with Proxy(server.port, cut_after=MODEL + (1 << 20)) as road:
        assert push.push(azure.layout, client(repository, road.port)).tags == 4
    assert azure.site("bergen")[0].fetch(client(repository), azure.site("bergen")[1]).version == 2


def test_a_registry_that_hangs_is_left_in_time(azure, tmp_path):
    with docker_registry.serving(tmp_path / "server") as server:
        server.pause()
        with pytest.raises(UnreachableError, match="does not answer"):
            client(server.repository, read_seconds=0.5).head("latest")


@pytest.mark.parametrize("tls", [False, True])
def test_with_a_password(azure, tmp_path, tls):
    with docker_registry.serving(tmp_path / "server", password=True, tls=tls) as server:
        who: dict[str, Any] = {"credential": Password(USER, PASSWORD), "ca": server.ca}
        push.push(azure.layout, client(server.repository, **who))
        store, trust = azure.site("bergen")
        assert store.fetch(client(server.repository, **who), trust).version == 1
        with pytest.raises(DeniedError, match="wants a user and a password"):
            client(server.repository, ca=server.ca).head("latest")
        with pytest.raises(DeniedError, match="does not let us"):
            client(server.repository, credential=Password(USER, "wrong"), ca=server.ca).head("latest")


def test_a_certificate_of_somebody_else_is_refused(azure, tmp_path):
    with (
        docker_registry.serving(tmp_path / "one", tls=True) as server,
        docker_registry.serving(tmp_path / "other", tls=True) as other,
        pytest.raises(DeniedError, match=r"no certificate that is trusted here .*: set its `ca`"),
    ):
        client(server.repository, ca=other.ca).head("latest")


@pytest.mark.parametrize("how", ["flip", "cut", "longer"])
def test_a_blob_that_was_tampered_with_on_its_disk_is_refused(azure, server, repository, how):
    push.push(azure.layout, client(repository))
    path = server.blob(azure.layer(1))
    data = path.read_bytes()
    path.write_bytes(
        {"flip": data[:-9] + bytes([data[-9] ^ 1]) + data[-8:], "cut": data[:-9], "longer": data + b"!"}[how]
    )
    store, trust = azure.site("bergen")
    with pytest.raises(DeliveryError):
        store.fetch(client(repository), trust)
    assert store.releases() == [] and not store.layout.tags()
    path.write_bytes(data)
    assert store.fetch(client(repository), trust).version == 1


def test_other_tools_find_image_and_what_is_about_it(azure, server, repository, tmp_path):
    push.push(azure.layout, client(repository))
    at, insecure = f"docker://{repository}", "--tls-verify=false"
    tags = json.loads(skopeo("list-tags", insecure, at))["Tags"]
    top = azure.layout.tags()["image-1"].digest
    assert {"image-1", "release-1", "latest", "trust", top.replace(":", "-")} == set(tags)
    assert json.loads(skopeo("inspect", insecure, f"{at}:image-1"))["Digest"] == top
    listed = json.loads(skopeo("inspect", "--raw", insecure, f"{at}:{top.replace(':', '-')}"))
    assert [each["artifactType"] for each in listed["manifests"]] == [release.ARTIFACT]
    copied = tmp_path / "copied"
    skopeo("copy", "--preserve-digests", "--src-tls-verify=false", f"{at}@{top}", f"oci:{copied}:image-1")
    assert Layout(copied).tags()["image-1"].digest == top
    # And the other way round: what skopeo brings to another registry is the same release.
    other = f"127.0.0.1:{server.port}/copied/{tmp_path.name.replace('_', '.').lower()}"
    for tag in tags:
        two = ("--preserve-digests", "--src-tls-verify=false", "--dest-tls-verify=false")
        if not tag.startswith("sha256-"):
            skopeo("copy", *two, f"{at}:{tag}", f"docker://{other}:{tag}")
    store, trust = azure.site("bergen")
    assert store.fetch(client(other), trust).version == 1


def test_a_folder_that_was_lost_comes_back_from_there(azure, server, repository):
    """As the documentation has it; begun anew, it would be refused as older, and by sites too."""
    azure.release(2)
    push.push(azure.layout, client(repository))
    before = azure.layout.tags()
    shutil.rmtree(azure.layout.path)
    for tag in before:
        where = (f"docker://{repository}:{tag}", f"oci:{azure.layout.path}:{tag}")
        skopeo("copy", "--preserve-digests", "--src-tls-verify=false", *where)
    assert {name: top.digest for name, top in azure.layout.tags().items()} == {
        name: top.digest for name, top in before.items()
    }
    azure.release(3)
    push.push(azure.layout, client(repository))
    store, trust = azure.site("bergen")
    assert store.fetch(client(repository), trust).version == 3


def test_oras_itself_takes_a_release(azure, server, repository, tmp_path):
    """The library beneath, used as anybody does."""
    from oras.client import OrasClient

    push.push(azure.layout, client(repository))
    plain = OrasClient(hostname=f"127.0.0.1:{server.port}", insecure=True)
    assert set(plain.get_tags(repository)) >= {"image-1", "latest"}
    manifest = plain.get_manifest(f"{repository}:release-1")
    assert manifest["artifactType"] == release.ARTIFACT
    (path,) = plain.pull(f"{repository}:release-1", outdir=str(tmp_path / "pulled"))
    envelope = azure.layout.get(manifest["layers"][0]["digest"], max_bytes=1 << 20)
    assert Path(path).read_bytes() == envelope
