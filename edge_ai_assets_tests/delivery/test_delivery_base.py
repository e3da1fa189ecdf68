from __future__ import annotations

import json

import pytest

from edge_ai_assets.delivery import base, bundle, image, release
from edge_ai_assets.delivery.errors import MalformedError, MismatchError, MissingError
from edge_ai_assets.delivery.layout import Layout
from edge_ai_assets.delivery.manifest import (
    CONFIG,
    LAYER,
    MANIFEST,
    Descriptor,
    Manifest,
    digest_of,
    encode,
    read_manifest,
)
from edge_ai_assets.delivery.store import SiteStore

BIG = 1 << 30
LAYERS = (b"python" * 1000, b"onnxruntime" * 1000)


def runtime_config(**changes):
    return {
        "architecture": "arm64",
        "os": "linux",
        "variant": "v8",
        "created": "2026-01-01T00:00:00Z",
        "config": {"User": "65532:65532", "Env": ["A=b"], "Entrypoint": ["python3"], "Labels": {"x": "y"}},
        "rootfs": {"type": "layers", "diff_ids": [digest_of(b"plain" + layer) for layer in LAYERS]},
        "history": [
            {"created_by": "COPY"},
            {"created_by": "ENV", "empty_layer": True},
            {"created_by": "COPY"},
        ],
    } | changes


def runtime_image(layout, config=None, layers=LAYERS, kind=LAYER + "+gzip", media_type=MANIFEST, **changes):
    """A runtime image as a container engine leaves it."""
    parts = tuple(layout.put(layer, kind) for layer in layers)
    document = Manifest(layout.put(encode(config or runtime_config()), CONFIG), parts, **changes)
    found = layout.put(encode(document), media_type)
    layout.tag("runtime", found)
    return found


@pytest.fixture
def source(tmp_path):
    return Layout(tmp_path / "source")


def built(layout, digest):
    manifest = read_manifest(layout, image.describe(layout, digest))
    return manifest, json.loads(layout.get(manifest.config.digest, max_bytes=BIG))


def test_the_model_lies_on_the_runtime_and_what_that_says_holds(make_model, registry, source):
    runtime_image(source)
    kept = base.keep(source, "runtime", registry)
    manifest, config = built(registry, image.build(make_model(), registry, annotations={"a": "b"}, base=kept))
    model, _ = built(registry, image.build(make_model(), registry, annotations={}))
    assert [layer.digest for layer in manifest.layers] == [*map(digest_of, LAYERS), model.layers[0].digest]
    assert manifest.annotations == {"a": "b", base.BASE_DIGEST: kept.digest}
    before = runtime_config()
    assert config["rootfs"]["diff_ids"] == [*before["rootfs"]["diff_ids"], model.layers[0].digest]
    assert config["history"] == [*before["history"], {"created_by": base.CREATED_BY}]
    for name in ("architecture", "os", "variant", "config"):
        assert config[name] == before[name]
    assert "created" not in config


def test_the_same_model_on_the_same_runtime_is_the_same_image_anywhere(
    make_model, registry, source, tmp_path
):
    runtime_image(source)
    elsewhere = Layout(tmp_path / "elsewhere")
    digests = {
        image.build(make_model(), layout, annotations={}, base=base.keep(source, "runtime", layout))
        for layout in (registry, elsewhere, registry)
    }
    assert len(digests) == 1
    assert digests == {"sha256:d8c68f04446124a3e75dde4e03fcc5b7e481e748d026b39c0854624de702f848"}


def test_another_runtime_another_image_but_the_same_model_layer(make_model, registry, source):
    runtime_image(source)
    first = image.build(make_model(), registry, annotations={}, base=base.keep(source, "runtime", registry))
    runtime_image(source, layers=(b"newer", LAYERS[1]))
    second = image.build(make_model(), registry, annotations={}, base=base.keep(source, "runtime", registry))
    assert first != second
    assert built(registry, first)[0].layers[-1] == built(registry, second)[0].layers[-1]
    assert image.model_digest(registry, first, max_bytes=BIG) == image.model_digest(
        registry, second, max_bytes=BIG
    )


def test_a_runtime_without_history_gives_an_image_without(make_model, registry, source):
    config = runtime_config()
    del config["history"]
    runtime_image(source, config)
    kept = base.keep(source, "runtime", registry)
    assert "history" not in built(registry, image.build(make_model(), registry, annotations={}, base=kept))[1]


def test_it_unpacks_to_the_model_alone(make_model, registry, source, tmp_path):
    runtime_image(source)
    model = make_model()
    digest = image.build(model, registry, annotations={}, base=base.keep(source, "runtime", registry))
    image.unpack(registry, digest, tmp_path / "out", max_bytes=BIG)
    assert sorted(path.name for path in (tmp_path / "out").rglob("*")) == sorted([*image.FILES, "model"])
    assert image.matches(registry, digest, tmp_path / "out", max_bytes=BIG)


def test_keeping_it_again_copies_nothing_and_heals_what_is_damaged(registry, source):
    runtime_image(source)
    kept = base.keep(source, "runtime", registry)
    assert registry.resolve("runtime") == kept
    blob = registry.path / "blobs" / "sha256" / digest_of(LAYERS[0])[7:]
    before = blob.stat().st_mtime_ns
    assert base.keep(source, "runtime", registry) == kept
    assert blob.stat().st_mtime_ns == before
    blob.write_bytes(b"x")
    base.keep(source, "runtime", registry)
    assert blob.read_bytes() == LAYERS[0]
    assert registry.collect() == []


def test_a_damaged_runtime_is_not_kept(registry, source):
    runtime_image(source)
    (source.path / "blobs" / "sha256" / digest_of(LAYERS[1])[7:]).write_bytes(LAYERS[1][:-1] + b"?")
    with pytest.raises(MismatchError, match="damaged"):
        base.keep(source, "runtime", registry)
    assert registry.tags() == {}


DOCKER = "application/vnd.docker.distribution.manifest.v2+json"


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"media_type": DOCKER}, "this needs"),
        ({"artifact_type": "application/x"}, "not"),
        ({"kind": "application/vnd.docker.image.rootfs.diff.tar.gzip"}, "a layer is"),
        ({"layers": ()}, "0 layers"),
        ({"layers": LAYERS[:1]}, "1 layers, its config says 2"),
        ({"layers": (*LAYERS, b"more")}, "3 layers, its config says 2"),
        ({"config": runtime_config(os="windows")}, "for 'windows'"),
        ({"config": runtime_config(rootfs={"type": "layers", "diff_ids": ["md5:1"]})}, "diff_ids"),
        ({"config": runtime_config(rootfs={"type": "layers", "diff_ids": [digest_of(b"")] * 101})}, "<= 100"),
        ({"config": {"os": "linux"}}, "architecture"),
    ],
)
def test_what_cannot_be_a_runtime_is_refused(registry, source, changes, told):
    runtime_image(source, **changes)
    with pytest.raises(MalformedError, match=told):
        base.keep(source, "runtime", registry)
    assert registry.tags() == {}


def test_a_runtime_that_is_not_there(make_model, registry, source):
    with pytest.raises(MissingError, match="no tag 'runtime'"):
        base.keep(source, "runtime", registry)
    with pytest.raises(MissingError):
        image.build(make_model(), registry, annotations={}, base=Descriptor(MANIFEST, digest_of(b""), 0))


def test_an_update_ships_the_model_and_less_than_64_kib_around_it(
    make_model, publish, registry, source, keys, tmp_path
):
    layers = tuple(bytes([number]) * (1 << 20) for number in (1, 2))
    runtime_image(source, layers=layers)
    kept = base.keep(source, "runtime", registry)
    store = SiteStore(tmp_path / "site")
    sizes = []
    for content in ("one", "two"):
        made = image.build(make_model(content), registry, annotations={}, base=kept)
        released = publish(registry, content, image=made)
        path = bundle.build(registry, released.version, tmp_path, keys, have=store.layout.blobs())
        bundle.import_bundle(path, store.layout, keys)
        assert store.fetch(store.layout, keys) == released
        sizes.append(path.stat().st_size)
    model = read_manifest(registry, image.describe(registry, released.image)).layers[-1].size
    assert sizes[0] > 2 << 20
    assert model < sizes[1] < model + (64 << 10)
    assert release.latest(store.layout, keys) == released
