from __future__ import annotations

import json
import os
import shutil

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edge_ai_assets.delivery import bundle, image, release
from edge_ai_assets.delivery.errors import (
    DeliveryError,
    ForeignError,
    MalformedError,
    MismatchError,
    MissingError,
    RollbackError,
    UntrustedError,
)
from edge_ai_assets.delivery.layout import Layout
from edge_ai_assets.delivery.store import SiteStore


@pytest.fixture
def store(tmp_path):
    return SiteStore(tmp_path / "site")


def folders(store):
    return sorted(name for name in os.listdir(store.folder / "releases") if name != ".lock")


def test_a_release_is_fetched_and_unpacked(registry, publish, keys, store, make_model):
    got = publish(registry)
    assert store.fetch(registry, keys) == got
    assert store.releases() == [got] and store.newest() == 1
    assert store.path(got) == store.folder / "releases" / got.image[7:19] / "model"
    for name in image.FILES:
        assert (store.path(got) / name).read_bytes() == (make_model() / name).read_bytes()
    assert release.get(store.layout, 1, keys) == got


def test_a_new_store_is_empty_and_reading_it_makes_nothing(store):
    assert store.releases() == [] and store.newest() is None and store.prune(1, set()) == []


def test_nothing_to_fetch_is_said(registry, keys, store):
    with pytest.raises(MissingError, match="latest"):
        store.fetch(registry, keys)


def test_fetching_again_touches_nothing(registry, publish, keys, store):
    publish(registry)
    store.fetch(registry, keys)
    before = {p: p.stat().st_mtime_ns for p in store.folder.rglob("*") if p.is_file()}
    store.fetch(registry, keys)
    assert {p: p.stat().st_mtime_ns for p in store.folder.rglob("*") if p.is_file()} == before


def test_only_what_is_missing_is_copied(registry, publish, keys, store, monkeypatch):
    publish(registry)
    store.fetch(registry, keys)
    publish(registry, "two")
    copied = []
    put = Layout.put_chunks
    monkeypatch.setattr(
        Layout, "put_chunks", lambda self, *a, **k: copied.append(k["expect"].digest) or put(self, *a, **k)
    )
    had = store.layout.blobs()
    store.fetch(registry, keys)
    assert len(copied) == len(set(copied)) == 5  # all but the empty config
    assert not had & set(copied)


def test_a_later_release_comes_beside_the_former(registry, publish, keys, store):
    first = publish(registry)
    store.fetch(registry, keys)
    second = publish(registry, "two")
    assert store.fetch(registry, keys) == second
    assert store.releases() == [first, second]
    assert store.path(first).is_dir() and store.path(second).is_dir()


def test_an_older_release_needs_an_operators_word(registry, publish, keys, store):
    published = [publish(registry, f"m{number}") for number in range(9)]
    store.fetch(registry, keys)
    with pytest.raises(RollbackError) as caught:
        store.fetch(registry, keys, version=7)
    assert str(caught.value) == (
        "release 7 refused: it is older than the installed release 9 (an operator may allow it)"
    )
    assert store.releases() == [published[8]]
    assert store.fetch(registry, keys, version=7, allow_rollback=True) == published[6]
    assert store.releases() == [published[6], published[8]]
    # Going back does not open the door for more: the newest ever installed still counts.
    assert store.newest() == 9
    with pytest.raises(RollbackError):
        store.fetch(registry, keys, version=8)
    assert store.fetch(registry, keys) == published[8]


def test_a_source_that_was_set_back_is_refused(registry, publish, keys, store, tmp_path):
    publish(registry)
    shutil.copytree(registry.path, tmp_path / "yesterday")
    publish(registry, "two")
    store.fetch(registry, keys)
    with pytest.raises(RollbackError, match="release 1 refused"):
        store.fetch(Layout(tmp_path / "yesterday"), keys)


def test_the_rollback_rule_outlives_pruning(registry, publish, keys, store):
    for content in ("one", "two", "three"):
        publish(registry, content)
        store.fetch(registry, keys)
    store.prune(1, set())
    with pytest.raises(RollbackError):
        store.fetch(registry, keys, version=2)


def test_a_stranger_installs_nothing(registry, publish, store):
    publish(registry)
    with pytest.raises(UntrustedError):
        store.fetch(registry, [Ed25519PrivateKey.from_private_bytes(bytes(32)).public_key()])
    assert store.releases() == [] and store.layout.blobs() == frozenset()


def test_a_release_of_another_use_case_is_refused(registry, publish, keys, store, tmp_path):
    first = publish(registry)
    store.fetch(registry, keys)
    other = Layout(tmp_path / "other")
    publish(other, "two", usecase="valve")
    publish(other, "three", usecase="valve")
    with pytest.raises(ForeignError, match="'valve', this site has 'pump'"):
        store.fetch(other, keys)
    assert store.releases() == [first]


@pytest.mark.parametrize("allow", [False, True])
def test_another_release_under_an_installed_version_is_refused(
    registry, publish, keys, store, tmp_path, allow
):
    first = publish(registry)
    store.fetch(registry, keys)
    other = Layout(tmp_path / "other")
    publish(other, "two")
    with pytest.raises(ForeignError, match="another release 1"):
        store.fetch(other, keys, allow_rollback=allow)
    assert store.releases() == [first]


def test_an_installed_version_stays_what_it_is_even_when_the_store_is_lost(
    registry, publish, keys, store, tmp_path
):
    publish(registry)
    store.fetch(registry, keys)
    shutil.rmtree(store.layout.path)
    other = Layout(tmp_path / "other")
    publish(other, "two")
    with pytest.raises(ForeignError, match="another release 1 is installed"):
        store.fetch(other, keys)


@pytest.mark.parametrize("kind", ["damaged", "missing", "longer"])
def test_a_source_with_a_bad_blob_installs_nothing(registry, publish, keys, tmp_path, kind):
    got = publish(registry)
    for number, blob in enumerate(sorted((registry.path / "blobs" / "sha256").iterdir())):
        store = SiteStore(tmp_path / f"site-{number}")
        good = blob.read_bytes()
        if kind == "missing":
            blob.unlink()
        else:
            blob.write_bytes(good + b"x" if kind == "longer" else bytes(len(good)))
        with pytest.raises(DeliveryError):
            store.fetch(registry, keys)
        assert store.releases() == [] and store.layout.tags() == {}
        blob.write_bytes(good)
        # What was copied before is not copied again, and the rest follows.
        assert store.fetch(registry, keys) == got


def test_damage_on_the_site_is_repaired_by_fetching_again(registry, publish, keys, store, make_model):
    got = publish(registry)
    store.fetch(registry, keys)
    (store.path(got) / "model.onnx").write_bytes(b"bad sector")
    for blob in (store.layout.path / "blobs" / "sha256").iterdir():
        blob.write_bytes(b"bad sector")
    store.fetch(registry, keys)
    assert (store.path(got) / "model.onnx").read_bytes() == (make_model() / "model.onnx").read_bytes()
    assert folders(store) == [got.image[7:19]]


def test_damage_in_the_unpacked_model_alone_is_repaired_from_the_store(registry, publish, keys, store):
    got = publish(registry)
    store.fetch(registry, keys)
    shutil.rmtree(store.path(got))
    store.fetch(store.layout, keys)
    assert image.matches(store.layout, got.image, store.path(got).parent, max_bytes=1 << 20)


def test_the_offline_road_ends_in_the_same_place(registry, publish, keys, store, tmp_path):
    got = publish(registry)
    bundle.import_bundle(bundle.build(registry, 1, tmp_path, keys), store.layout, keys)
    assert store.releases() == []
    assert store.fetch(store.layout, keys) == got
    linked = SiteStore(tmp_path / "linked")
    linked.fetch(registry, keys)
    for kind in ("installed.json", "store/index.json"):
        assert (linked.folder / kind).read_bytes() == (store.folder / kind).read_bytes()
    assert linked.layout.blobs() == store.layout.blobs()


def test_prune_keeps_the_newest_and_those_in_use(registry, publish, keys, store):
    published = []
    for number in range(5):
        published.append(publish(registry, f"m{number}"))
        store.fetch(registry, keys)
    removed = store.prune(2, {1})
    assert [item.version for item in removed] == [2, 3]
    assert [item.version for item in store.releases()] == [1, 4, 5]
    assert folders(store) == sorted(item.image[7:19] for item in published if item.version in (1, 4, 5))
    assert set(store.layout.tags()) == {f"{kind}-{v}" for kind in ("image", "release") for v in (1, 4, 5)} | {
        "latest"
    }
    for item in store.releases():
        assert image.matches(store.layout, item.image, store.path(item).parent, max_bytes=1 << 20)
    assert len(store.layout.blobs()) == 3 * 5 + 1
    assert store.prune(2, {1}) == []


def test_prune_keeps_a_model_that_a_kept_release_shares(registry, publish, keys, store):
    for content in ("one", "two", "one"):
        publish(registry, content)
        store.fetch(registry, keys)
    store.prune(1, set())
    (kept,) = store.releases()
    assert kept.version == 3 and (store.path(kept) / "model.onnx").is_file()


def test_prune_keeps_what_was_imported_but_is_not_installed_yet(registry, publish, keys, store, tmp_path):
    publish(registry)
    store.fetch(registry, keys)
    second = publish(registry, "two")
    bundle.import_bundle(bundle.build(registry, 2, tmp_path, keys), store.layout, keys)
    store.prune(1, set())
    assert store.fetch(store.layout, keys) == second


@pytest.mark.parametrize("keep", [0, -1])
def test_prune_never_removes_the_newest(store, keep):
    with pytest.raises(ValueError, match=f"keep is {keep}"):
        store.prune(keep, set())


@pytest.mark.parametrize(
    "content", [b"", b"{}", b"[]", b'{"usecase": "pump", "newest": 1, "releases": [], "format": 2}']
)
def test_a_damaged_record_is_refused_and_not_taken_for_a_new_site(registry, publish, keys, store, content):
    publish(registry)
    store.fetch(registry, keys)
    (store.folder / "installed.json").write_bytes(content)
    with pytest.raises(MalformedError, match=r"installed\.json"):
        store.fetch(registry, keys)
    with pytest.raises(MalformedError, match=r"installed\.json"):
        store.releases()


def test_the_record_is_readable_by_people(registry, publish, keys, store):
    got = publish(registry)
    store.fetch(registry, keys)
    found = json.loads((store.folder / "installed.json").read_bytes())
    assert (found["usecase"], found["newest"], found["format"]) == ("pump", 1, 1)
    assert found["releases"][0]["image"] == got.image


def test_two_processes_fetch_and_prune_at_once(registry, publish, keys, store):
    for number in range(6):
        publish(registry, f"m{number}")
    children = []
    for seed in range(3):
        if (pid := os.fork()) == 0:
            status = 1
            try:
                mine = SiteStore(store.folder)
                for version in (1, 4, 6, 2 + seed):
                    mine.fetch(registry, keys, version=version, allow_rollback=True)
                    mine.prune(2, {1})
                status = 0
            finally:
                os._exit(status)
        children.append(pid)
    assert [os.waitpid(pid, 0)[1] for pid in children] == [0, 0, 0]
    assert [item.version for item in store.releases()] == [1, 4, 6]
    for item in store.releases():
        assert image.matches(store.layout, item.image, store.path(item).parent, max_bytes=1 << 20)


@settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(steps=st.lists(st.tuples(st.integers(1, 5), st.booleans(), st.integers(0, 2)), max_size=8))
def test_the_newest_never_falls_and_what_is_listed_is_whole(registry, publish, keys, tmp_path_factory, steps):
    for number in range(len(release.versions(registry.tags())), 5):
        publish(registry, f"m{number}")
    store, newest = SiteStore(tmp_path_factory.mktemp("site")), 0
    for version, allow, keep in steps:
        try:
            store.fetch(registry, keys, version=version, allow_rollback=allow)
            assert version >= newest or allow
        except RollbackError:
            assert version < newest and not allow
        newest = max(newest, version)
        assert store.newest() == newest
        if keep:
            store.prune(keep, set())
        for item in store.releases():
            assert image.matches(store.layout, item.image, store.path(item).parent, max_bytes=1 << 20)
            assert release.get(store.layout, item.version, keys) == item


def test_a_size_that_is_not_the_blobs_is_refused(registry, publish, keys, store):
    got = publish(registry)
    layer = image.read_manifest(registry, image.describe(registry, got.image)).layers[0]
    path = registry.path / "blobs" / "sha256" / layer.digest[7:]
    path.write_bytes(path.read_bytes()[:-512])
    with pytest.raises(MismatchError):
        store.fetch(registry, keys)
