from __future__ import annotations

import json
import tarfile

import pytest
import yaml
from typer.testing import CliRunner

from edge_ai_assets.commands import runtime
from edge_ai_assets.delivery import base, image, release, signing
from edge_ai_assets.delivery.errors import MalformedError, MismatchError
from edge_ai_assets.delivery.layout import Layout
from edge_ai_assets.delivery.manifest import CONFIG, LAYER, MANIFEST, Manifest, digest_of, encode
from edge_ai_assets.delivery.store import SiteStore
from edge_ai_assets.runtimes.sideload import IMAGE_NAME, oci_archive

LAYERS = (b"python" * 1000, b"onnxruntime" * 1000)


@pytest.fixture
def model(tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    for name in image.FILES:
        (folder / name).write_text(name)
    return folder


@pytest.fixture
def layout(tmp_path):
    return Layout(tmp_path / "layout")


@pytest.fixture
def runtime_image(layout):
    config = {
        "architecture": "amd64",
        "os": "linux",
        "rootfs": {"type": "layers", "diff_ids": [digest_of(layer) for layer in LAYERS]},
    }
    parts = tuple(layout.put(layer, LAYER) for layer in LAYERS)
    made = layout.put(encode(Manifest(layout.put(encode(config), CONFIG), parts)), MANIFEST)
    layout.tag("runtime", made)
    return base.keep(layout, "runtime", layout)


def test_it_is_a_layout_in_a_tar_under_the_name_in_the_manifests(
    layout, model, runtime_image, place, tmp_path
):
    digest = image.build(model, layout, annotations={}, base=runtime_image)
    image.build(model, layout, annotations={"another": "image"})
    path = oci_archive(layout, digest, place, 7, tmp_path / "out" / "release.tar")
    with tarfile.open(path) as tar:
        files = {member.name: tar.extractfile(member).read() for member in tar}
    (entry,) = json.loads(files.pop("index.json"))["manifests"]
    assert json.loads(files.pop("oci-layout")) == {"imageLayoutVersion": "1.0.0"}
    assert entry["annotations"][IMAGE_NAME] == f"registry.lan/edge/pump@{digest}"
    assert entry["annotations"]["org.opencontainers.image.ref.name"] == "release-7"
    assert entry["digest"] == digest
    assert all(name == f"blobs/{digest_of(data).replace(':', '/')}" for name, data in files.items())
    assert len(files) == 2 + len(LAYERS) + 1  # manifest, config, layers, and nothing of the other image


def test_what_no_engine_could_run_is_not_written(layout, model, place, tmp_path):
    digest = image.build(model, layout, annotations={})
    with pytest.raises(MalformedError, match="only a model"):
        oci_archive(layout, digest, place, 1, tmp_path / "release.tar")
    assert not (tmp_path / "release.tar").exists()


def test_a_damaged_blob_leaves_no_file(layout, model, runtime_image, place, tmp_path):
    digest = image.build(model, layout, annotations={}, base=runtime_image)
    (layout.path / "blobs" / "sha256" / digest_of(LAYERS[1])[7:]).write_bytes(b"?" * len(LAYERS[1]))
    with pytest.raises(MismatchError, match="damaged"):
        oci_archive(layout, digest, place, 1, tmp_path / "out" / "release.tar")
    assert [path.name for path in (tmp_path / "out").iterdir()] == [".lock"]


@pytest.fixture
def site(layout, model, runtime_image, tmp_path, monkeypatch):
    """A site on whose disk the release is."""
    key = signing.load_private(signing.create(tmp_path / "keys", "release"))
    made = image.build(model, layout, annotations={}, base=runtime_image)
    released = release.publish(
        layout, image=made, usecase="pump", run_id="r", data_version="v", metrics={}, key=key
    )
    monkeypatch.setenv("EDGE_AI_HOME", str(tmp_path / "home"))
    SiteStore(tmp_path / "home" / "sites" / "bergen").fetch(layout, [key.public_key()])
    return released


HERE = ["--site", "bergen", "--repository", "registry.lan/edge/pump"]


def test_the_commands_print_and_write_the_newest_release_of_a_site(site, tmp_path):
    shown = CliRunner().invoke(runtime.kubernetes, ["manifests", *HERE, "--namespace", "plant"])
    assert shown.exit_code == 0
    deployment = list(yaml.safe_load_all(shown.stdout))[-1]
    assert deployment["metadata"]["namespace"] == "plant"
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    assert container["image"] == f"registry.lan/edge/pump@{site.image}"
    out = tmp_path / "release.tar"
    assert CliRunner().invoke(runtime.kubernetes, ["archive", *HERE, "--to", str(out)]).exit_code == 0
    with tarfile.open(out) as tar:
        (entry,) = json.load(tar.extractfile("index.json"))["manifests"]
    assert entry["digest"] == site.image


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["--site", "oslo", *HERE[2:]], runtime.FAILED),
        ([*HERE[:3], "Not A Repository"], runtime.USAGE),
    ],
)
def test_the_commands_refuse_what_they_cannot_do(site, arguments, code):
    assert CliRunner().invoke(runtime.kubernetes, ["manifests", *arguments]).exit_code == code
