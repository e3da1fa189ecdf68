from __future__ import annotations

import hashlib
import json
import os
from datetime import datetime

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from edge_ai_assets.delivery import image, release, signing
from edge_ai_assets.delivery.errors import (
    DeliveryError,
    ForeignError,
    MalformedError,
    MismatchError,
    MissingError,
    UntrustedError,
)
from edge_ai_assets.delivery.manifest import MANIFEST, Descriptor, Manifest, encode, read_manifest
from edge_ai_assets_tests.delivery.conftest import all_releases

STRANGER = Ed25519PrivateKey.from_private_bytes(bytes(32))


def statement_blob(registry, version):
    top = registry.resolve(f"release-{version}")
    return read_manifest(registry, top).layers[0]


def forge(registry, key, payload: bytes, tag: str, subject: Descriptor | None = None, **changes):
    """A release with any payload, tagged."""
    envelope = registry.put(signing.envelope(payload, release.PAYLOAD, key), release.ENVELOPE)
    manifest = Manifest(
        registry.put(b"{}", "application/vnd.oci.empty.v1+json"),
        (envelope,),
        **{"artifact_type": release.ARTIFACT, "subject": subject, **changes},
    )
    registry.tag(tag, registry.put(encode(manifest), MANIFEST))


def test_a_release_states_what_it_is_of(registry, publish, keys, make_model):
    got = publish(registry, metrics={"f1": 0.9, "rows": 3})
    assert got.version == 1 and got.usecase == "pump" and got.format == 1
    assert got.image == image.build(make_model(), registry, annotations={})
    assert got.model == "sha256:" + hashlib.sha256((make_model() / "model.onnx").read_bytes()).hexdigest()
    assert got.metrics == {"f1": 0.9, "rows": 3.0}
    assert (got.run_id, got.data_version) == ("run-1", "v1")
    assert release.latest(registry, keys) == release.get(registry, 1, keys) == got
    assert registry.resolve("latest") == registry.resolve("release-1")
    assert registry.resolve("image-1").digest == got.image


def test_an_empty_registry_has_no_release(registry, keys):
    assert release.latest(registry, keys) is None
    assert all_releases(registry, keys) == []
    with pytest.raises(MissingError, match="release-1"):
        release.get(registry, 1, keys)
    assert not registry.path.exists()


def test_the_latest_image_again_is_the_latest_release_again(registry, publish, keys):
    first = publish(registry)
    before = (registry.path / "index.json").read_bytes(), registry.blobs()
    assert publish(registry, run_id="run-2", metrics={"f1": 0.1}, created=None) == first
    assert ((registry.path / "index.json").read_bytes(), registry.blobs()) == before


def test_versions_rise_and_an_older_image_may_come_back(registry, publish, keys):
    published = [publish(registry, content) for content in ("one", "two", "one", "three")]
    assert [item.version for item in published] == [1, 2, 3, 4]
    assert published[0].image == published[2].image
    assert all_releases(registry, keys) == published
    assert release.latest(registry, keys) == published[-1]


def test_ten_comes_after_nine(registry, publish, keys):
    for number in range(11):
        publish(registry, f"m{number}")
    assert [item.version for item in all_releases(registry, keys)] == list(range(1, 12))


def test_an_image_that_is_not_there_is_not_released(registry, publish):
    publish(registry)
    before = registry.tags()
    with pytest.raises(MissingError, match="0000"):
        publish(registry, image="sha256:" + "0" * 64)
    assert registry.tags() == before


@pytest.mark.parametrize(
    "changes",
    [
        {"usecase": "Pump Station"},
        {"usecase": "../x"},
        {"usecase": "x\n"},
        {"metrics": {"f1": float("nan")}},
        {"created": datetime(2026, 1, 1)},
    ],
)
def test_what_no_site_could_read_is_not_published(registry, publish, changes):
    with pytest.raises(MalformedError):
        publish(registry, **changes)
    assert registry.tags() == {}


def test_one_registry_is_for_one_use_case(registry, publish):
    publish(registry)
    with pytest.raises(ForeignError, match="registry of its own"):
        publish(registry, "two", usecase="valve")


def test_whoever_has_no_trusted_key_publishes_nothing_on_top(registry, publish, keys):
    publish(registry)
    before = registry.tags()
    with pytest.raises(UntrustedError):
        publish(registry, "two", key=STRANGER)
    assert registry.tags() == before
    # After a change of keys the former one is still trusted for what it signed.
    assert publish(registry, "two", key=STRANGER, keys=keys).version == 2
    with pytest.raises(UntrustedError):
        release.latest(registry, keys)
    assert len(all_releases(registry, [*keys, STRANGER.public_key()])) == 2


@pytest.mark.parametrize("trusted", [[], [STRANGER.public_key()]])
def test_nothing_is_read_without_the_key(registry, publish, trusted):
    publish(registry)
    for call in (
        lambda: release.latest(registry, trusted),
        lambda: release.get(registry, 1, trusted),
        lambda: all_releases(registry, trusted),
    ):
        with pytest.raises(UntrustedError):
            call()


def test_a_tag_moved_to_another_version_is_noticed(registry, publish, keys):
    publish(registry)
    publish(registry, "two")
    registry.tag("release-2", registry.resolve("release-1"))
    with pytest.raises(MismatchError, match="says that it is 1"):
        release.get(registry, 2, keys)


def test_a_statement_put_on_another_image_is_noticed(registry, publish, keys, key):
    one, two = publish(registry), publish(registry, "two")
    subject = image.describe(registry, two.image)
    forge(registry, key, encode(one), "latest", subject)
    with pytest.raises(MismatchError, match="is about"):
        release.latest(registry, keys)


@pytest.mark.parametrize(
    "changes",
    [
        {"annotations": {"a": "b"}},
        {"artifact_type": "application/x"},
        {"artifact_type": None},
        {"layers": ()},
    ],
)
def test_an_artifact_with_anything_else_in_it_is_refused(registry, publish, keys, changes):
    publish(registry)
    manifest = read_manifest(registry, registry.resolve("latest"))
    fields = {name: getattr(manifest, name) for name in manifest.__struct_fields__}
    registry.tag("latest", registry.put(encode(Manifest(**{**fields, **changes})), MANIFEST))
    with pytest.raises(MalformedError):
        release.latest(registry, keys)


def test_the_same_artifact_written_otherwise_is_refused(registry, publish, keys):
    publish(registry)
    data = registry.get(registry.resolve("latest").digest, max_bytes=1 << 20)
    registry.tag("latest", registry.put(data + b" ", MANIFEST))
    with pytest.raises(MalformedError, match="one form"):
        release.latest(registry, keys)


def test_an_image_is_no_release(registry, publish, keys):
    publish(registry)
    registry.tag("latest", registry.resolve("image-1"))
    with pytest.raises(MalformedError, match="no release"):
        release.latest(registry, keys)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"format": 4}, "format 4.*upgrade"),
        ({"format": 3}, "format 3 is of containers"),
        ({"model": None}, "format 3 is of containers"),
        ({"format": 2}, "format 2 with 0 attachments"),
        ({"attached": {"sbom": "sha256:" + "0" * 64}}, "format 1 with 1 attachments"),
        ({"format": "1"}, "format"),
        ({"version": 0}, "version"),
        ({"version": 1.5}, "version"),
        ({"image": "latest"}, "image"),
        ({"extra": 1}, "extra"),
        ({"metrics": None}, "metrics"),
        ({"created": "yesterday"}, "created"),
        ({"run_id": None}, "run_id"),
    ],
)
def test_a_signed_statement_of_another_form_is_refused_by_field(registry, publish, keys, key, change, reason):
    first = publish(registry)
    payload = json.dumps({**json.loads(encode(first)), **change}).encode()
    forge(registry, key, payload, "latest", image.describe(registry, first.image))
    with pytest.raises(MalformedError, match=reason):
        release.latest(registry, keys)


def test_every_flipped_byte_of_the_three_documents_is_refused(registry, publish, keys):
    good = publish(registry)
    documents = [
        registry.resolve("latest"),
        statement_blob(registry, 1),
        image.describe(registry, good.image),
    ]
    for document in documents:
        path = registry.path / "blobs" / "sha256" / document.digest[7:]
        data = path.read_bytes()
        for position in range(len(data)):
            bad = bytearray(data)
            bad[position] ^= 1
            path.write_bytes(bad)
            with pytest.raises(DeliveryError):
                release.latest(registry, keys)
        path.write_bytes(data)
    assert release.latest(registry, keys) == good


@pytest.mark.parametrize("name", ["release-0", "release-01", "release-x", "release-9999999999", "other"])
def test_tags_of_others_are_no_releases(registry, publish, keys, name):
    first = publish(registry)
    registry.tag(name, registry.resolve("image-1"))
    assert all_releases(registry, keys) == [first]
    assert publish(registry, "two").version == 2


def test_two_publishers_at_once_get_two_versions(registry, publish, keys, make_model):
    for content in "abcdef":
        make_model(content)
    children = []
    for mine in ("abc", "def"):
        if (pid := os.fork()) == 0:
            status = 1
            try:
                for content in mine:
                    publish(registry, content)
                status = 0
            finally:
                os._exit(status)
        children.append(pid)
    assert [os.waitpid(pid, 0)[1] for pid in children] == [0, 0]
    found = all_releases(registry, keys)
    assert [item.version for item in found] == [1, 2, 3, 4, 5, 6]
    assert len({item.image for item in found}) == 6
