"""A node's containerd takes a sideloaded release, and then has what the kubelet asks it for."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge_ai_assets.delivery import base, image
from edge_ai_assets.delivery.layout import Layout
from edge_ai_assets.runtimes.manifests import USER
from edge_ai_assets.runtimes.placement import Placement
from edge_ai_assets.runtimes.sideload import oci_archive
from edge_ai_assets_tests.integration.containers import need, run, runtime_base
from edge_ai_assets_tests.scoring.processes import wait
from edge_ai_assets_tests.tiny_model import tiny_release

pytestmark = pytest.mark.integration

PLACE = Placement("bergen", "registry.bergen.lan/edge/tiny")
CONFIG = """
version = 2
root = "{folder}/root"
state = "{folder}/state"
[grpc]
address = "{folder}/socket"
"""


class Node:
    """containerd as a node of Kubernetes has it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def ctr(self, *arguments: str | Path) -> str:
        return run("ctr", "--address", self.folder / "socket", "--namespace", "k8s.io", *arguments)

    def has(self, name: str) -> bool:
        """Whether it has an image, by the call with which the kubelet decides whether to pull."""
        import grpc

        with grpc.insecure_channel(f"unix://{self.folder}/socket") as channel:
            ask = channel.unary_unary(
                "/runtime.v1.ImageService/ImageStatus",
                request_serializer=bytes,
                response_deserializer=bytes,
            )
            # ImageStatusRequest{image: ImageSpec{image: name}}; of an image it has not, the answer is empty.
            return bool(ask(_field(_field(name.encode())), timeout=10))


def _field(data: bytes) -> bytes:
    """Field 1 of a protobuf message, of at most 127 bytes or, by two, 16 KiB."""
    size = bytes([len(data)]) if len(data) < 128 else bytes([len(data) & 127 | 128, len(data) >> 7])
    return b"\x0a" + size + data


@pytest.fixture
def node() -> Iterator[Node]:
    need("containerd", "ctr", "runc", "buildah", "mmdebstrap")
    folder = Path(tempfile.mkdtemp(prefix="edge-ai-"))  # a socket's path is at most 107 characters
    (folder / "config.toml").write_text(CONFIG.format(folder=folder))
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(["containerd", "--config", folder / "config.toml"], stderr=log, stdout=log)
    try:
        wait(lambda: "containerd successfully booted" in (folder / "log").read_text())
        yield Node(folder)
    finally:
        process.terminate()
        process.wait(60)
        shutil.rmtree(folder, ignore_errors=True)


def test_the_kubelet_finds_a_sideloaded_release_by_the_name_in_the_manifests(node, tmp_path):
    layout = Layout(tmp_path / "layout")
    model = tiny_release(tmp_path / "model", usecase=True)
    for name in image.FILES:
        if not (model / name).exists():
            (model / name).write_text("{}\n")
    kept = base.keep(runtime_base(), "runtime", layout)
    digest = image.build(model, layout, annotations={}, base=kept)
    archive = oci_archive(layout, digest, PLACE, 7, tmp_path / "release.tar")
    wanted = PLACE.image(digest)

    assert not node.has(wanted)
    node.ctr("images", "import", archive)
    assert node.has(wanted)
    assert not node.has(f"registry.elsewhere.lan/edge/tiny@{digest}")
    node.ctr("images", "import", archive)
    assert node.has(wanted)
    inside = "import os; print(os.getuid(), sorted(os.listdir('/model')))"
    said = node.ctr("run", "--rm", "--read-only", wanted, "look", "python3", "-c", inside)
    assert said.strip() == f"{USER} {sorted(image.FILES)}"
