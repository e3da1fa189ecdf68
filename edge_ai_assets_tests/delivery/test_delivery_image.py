from __future__ import annotations

import hashlib
import io
import json
import os
import random
import shutil
import tarfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_ai_assets.delivery import archive, image
from edge_ai_assets.delivery.errors import MalformedError, MismatchError, MissingError, TooLargeError
from edge_ai_assets.delivery.layout import Layout
from edge_ai_assets.delivery.manifest import CONFIG, LAYER, MANIFEST, Manifest, encode, read_manifest

BIG = 1 << 30


def image_of(layout, layer: bytes, media_type=LAYER, layers=1):
    """An image around any bytes as its layer, as a forger would make it."""
    part = layout.put(layer, media_type)
    return layout.put(encode(Manifest(layout.put(b"{}", CONFIG), (part,) * layers)), MANIFEST).digest


def packed(*members):
    return b"".join(archive.pack(archive.Member(name, len(data), [data]) for name, data in members))


def test_the_same_model_gives_the_same_digest_wherever_and_whenever(make_model, registry, tmp_path):
    model = make_model()
    digest = image.build(model, registry, annotations={"b": "2", "a": "1"})
    copy = tmp_path / "elsewhere"
    copy.mkdir()
    for name in reversed(image.FILES):
        shutil.copy(model / name, copy)
        os.utime(copy / name, (1, 1))
        (copy / name).chmod(0o600)
    (copy / "notes.txt").write_text("does not ship")
    assert image.build(copy, Layout(tmp_path / "r2"), annotations={"a": "1", "b": "2"}) == digest


def test_the_digest_is_the_same_on_every_machine_and_in_every_version(make_model, registry):
    """A change here means that every site fetches every model anew: it must be meant."""
    golden = "sha256:6c29682a731ef5c60bd94aad18659e9b6cbcb062f0d6bab4061a5c589cd06f43"
    assert image.build(make_model(), registry, annotations={"a": "b"}) == golden


@pytest.mark.parametrize("name", image.FILES)
def test_any_changed_file_gives_another_digest(make_model, registry, name):
    model = make_model()
    before = image.build(model, registry, annotations={})
    (model / name).write_bytes((model / name).read_bytes() + b" ")
    assert image.build(model, registry, annotations={}) != before


def test_annotations_are_part_of_the_digest_but_not_of_the_layer(make_model, registry):
    digests = {image.build(make_model(), registry, annotations=a) for a in ({}, {"a": "1"}, {"a": "2"})}
    assert len(digests) == 3
    layers = {read_manifest(registry, image.describe(registry, d)).layers[0].digest for d in digests}
    assert len(layers) == 1


def test_it_is_an_oci_image(make_model, registry):
    digest = image.build(make_model(), registry, annotations={"k": "v"})
    manifest = json.loads(registry.get(digest, max_bytes=BIG))
    assert (manifest["schemaVersion"], manifest["mediaType"]) == (2, MANIFEST)
    assert manifest["annotations"] == {"k": "v"}
    config = json.loads(registry.get(manifest["config"]["digest"], max_bytes=BIG))
    (layer,) = manifest["layers"]
    assert config["rootfs"] == {"type": "layers", "diff_ids": [layer["digest"]]}
    assert config["os"] and config["architecture"]
    data = registry.get(layer["digest"], max_bytes=BIG)
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        assert tar.getnames() == [f"model/{name}" for name in sorted(image.FILES)]


@pytest.mark.parametrize("name", image.FILES)
def test_an_incomplete_model_is_refused_by_name(make_model, registry, name):
    model = make_model()
    (model / name).unlink()
    with pytest.raises(MissingError, match=name):
        image.build(model, registry, annotations={})
    assert registry.blobs() == frozenset()


def test_an_annotation_that_is_no_text_is_refused(make_model, registry):
    with pytest.raises(MalformedError, match="annotations"):
        image.build(make_model(), registry, annotations={"a": 1})


def test_it_unpacks_to_what_went_in(make_model, registry, tmp_path):
    model, into = make_model(), tmp_path / "out" / "x"
    image.unpack(registry, image.build(model, registry, annotations={}), into, max_bytes=BIG)
    assert {p.name: p.read_bytes() for p in (into / "model").iterdir()} == {
        name: (model / name).read_bytes() for name in image.FILES
    }
    assert sorted(os.listdir(into.parent)) == [".lock", "x"]


def test_the_model_digest_is_of_the_onnx_file(make_model, registry):
    model = make_model()
    digest = image.build(model, registry, annotations={})
    expected = hashlib.sha256((model / "model.onnx").read_bytes()).hexdigest()
    assert image.model_digest(registry, digest, max_bytes=BIG) == f"sha256:{expected}"
    with pytest.raises(MissingError, match=r"no model/model\.onnx"):
        image.model_digest(registry, image_of(registry, packed(("model/x", b""))), max_bytes=BIG)


def test_unpacking_again_touches_nothing(make_model, registry, tmp_path):
    digest = image.build(make_model(), registry, annotations={})
    image.unpack(registry, digest, tmp_path / "x", max_bytes=BIG)
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "x").rglob("*")}
    image.unpack(registry, digest, tmp_path / "x", max_bytes=BIG)
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "x").rglob("*")} == before


def _longer(model):
    (model / "model.onnx").write_bytes((model / "model.onnx").read_bytes() + b"x")


def _shorter(model):
    (model / "model.onnx").write_bytes((model / "model.onnx").read_bytes()[:-1])


def _other(model):
    (model / "model.onnx").write_bytes(b"x" * (model / "model.onnx").stat().st_size)


def _link(model):
    shutil.move(model / "model.onnx", model.parent.parent / "moved")
    (model / "model.onnx").symlink_to(model.parent.parent / "moved")


CHANGES = [
    _longer,
    _shorter,
    _other,
    _link,
    lambda model: (model / "model.onnx").unlink(),
    lambda model: (model / "more").write_text(""),
    lambda model: (model.parent / "more").write_text(""),
    lambda model: shutil.rmtree(model),
]


@pytest.mark.parametrize("change", CHANGES)
def test_a_folder_that_is_something_else_is_never_taken_for_it_nor_written_to(
    make_model, registry, tmp_path, change
):
    digest, into = image.build(make_model(), registry, annotations={}), tmp_path / "x"
    image.unpack(registry, digest, into, max_bytes=BIG)
    change(into / "model")
    assert not image.matches(registry, digest, into, max_bytes=BIG)
    before = sorted(p.name for p in into.rglob("*"))
    with pytest.raises(MismatchError, match="remove it"):
        image.unpack(registry, digest, into, max_bytes=BIG)
    assert sorted(p.name for p in into.rglob("*")) == before


def test_rest_of_a_killed_process_does_not_get_in(make_model, registry, tmp_path):
    rest = tmp_path / ".x.partial" / "model"
    rest.mkdir(parents=True)
    (rest / "evil.sh").write_text("half")
    image.unpack(registry, image.build(make_model(), registry, annotations={}), tmp_path / "x", max_bytes=BIG)
    assert sorted(os.listdir(tmp_path / "x" / "model")) == sorted(image.FILES)
    assert not (tmp_path / ".x.partial").exists()


def test_the_bound_is_on_the_layer_before_it_is_read(make_model, registry, tmp_path):
    digest = image.build(make_model(), registry, annotations={})
    size = read_manifest(registry, image.describe(registry, digest)).layers[0].size
    with pytest.raises(TooLargeError, match=f"{size} bytes, {size - 1}"):
        image.unpack(registry, digest, tmp_path / "x", max_bytes=size - 1)
    assert not (tmp_path / "x").exists()
    image.unpack(registry, digest, tmp_path / "x", max_bytes=size)


def tar_of(name="model/a", data=b"x", **changes):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.GNU_FORMAT) as tar:
        info = tarfile.TarInfo(name)
        info.size = len(data)
        for field, value in changes.items():
            setattr(info, field, value)
        tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


@pytest.mark.parametrize(
    "layer",
    [
        tar_of("../../../etc/cron.d/evil"),
        tar_of("/etc/passwd"),
        tar_of("model/../../evil"),
        tar_of("model/link", b"", type=tarfile.SYMTYPE, linkname="/etc"),
        tar_of("model/link", b"", type=tarfile.LNKTYPE, linkname="/etc/passwd"),
        tar_of("model/device", b"", type=tarfile.CHRTYPE, devmajor=1, devminor=5),
        tar_of("model", b"", type=tarfile.DIRTYPE),
        tar_of("model/suid", mode=0o4755),
        packed(("evil", b"x")),
        packed(("model/sub/evil", b"x")),
        packed(("models/evil", b"x")),
        packed(("model", b"x")),
        packed(("model/a", b"1"), ("model/a", b"2")),
        packed(*((f"model/{number}", b"") for number in range(65))),
        packed(("model/a", b"1"))[:-1],
        packed(("model/a", b"1")) + b"x",
        b"",
        random.Random(1).randbytes(5000),
    ],
)
def test_a_layer_of_another_form_leaves_nothing_behind(registry, tmp_path, layer):
    into = tmp_path / "out" / "x"
    with pytest.raises(MalformedError, match="sha256:"):
        image.unpack(registry, image_of(registry, layer), into, max_bytes=BIG)
    assert os.listdir(into.parent) == [".lock"]
    assert not (tmp_path / "evil").exists()


@pytest.mark.parametrize(
    ("media_type", "layers"), [(LAYER + "+gzip", 1), ("text/plain", 1), (LAYER, 0), (LAYER + "+zstd", 2)]
)
def test_an_image_of_another_kind_is_refused(registry, tmp_path, media_type, layers):
    with pytest.raises(MalformedError, match="last layer"):
        image.unpack(
            registry, image_of(registry, packed(), media_type, layers), tmp_path / "x", max_bytes=BIG
        )


def test_a_damaged_layer_is_refused_before_anything_is_unpacked(make_model, registry, tmp_path):
    digest = image.build(make_model(), registry, annotations={})
    layer = read_manifest(registry, image.describe(registry, digest)).layers[0]
    path = registry.path / "blobs" / "sha256" / layer.digest[7:]
    data = bytearray(path.read_bytes())
    data[600] ^= 1
    path.write_bytes(data)
    with pytest.raises(MismatchError, match="damaged"):
        image.unpack(registry, digest, tmp_path / "out" / "x", max_bytes=BIG)
    assert os.listdir(tmp_path / "out") == [".lock"]


@settings(max_examples=20, deadline=None)
@given(content=st.fixed_dictionaries({name: st.binary(max_size=2000) for name in image.FILES}))
def test_any_content_survives_the_round(tmp_path_factory, content):
    folder = tmp_path_factory.mktemp("image")
    for name, data in content.items():
        (folder / name).write_bytes(data)
    layout = Layout(folder / "layout")
    digest = image.build(folder, layout, annotations={})
    image.unpack(layout, digest, folder / "out", max_bytes=BIG)
    assert {p.name: p.read_bytes() for p in (folder / "out" / "model").iterdir()} == content
