"""Each call that changes the disk durably is made to fail, or to be the last one of its process."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from edge_ai_assets.delivery import bundle, image, release, signing
from edge_ai_assets.delivery.errors import KeyFileError
from edge_ai_assets.delivery.layout import Layout
from edge_ai_assets.delivery.store import SiteStore
from edge_ai_assets_tests.delivery.conftest import all_releases

pytestmark = pytest.mark.slow

CALLS = ("replace", "fsync", "unlink", "mkdir", "rmdir")


def fail_at(monkeypatch, number, action):
    """Do `action` instead of the call with that number, counted over `CALLS`; returns the count so far."""
    count = [0]

    def wrap(original):
        def call(*arguments, **options):
            count[0] += 1
            if count[0] == number:
                action()
            return original(*arguments, **options)

        return call

    for name in CALLS:
        monkeypatch.setattr(os, name, wrap(getattr(os, name)))
    return count


def disk_full():
    raise OSError(errno.ENOSPC, "No space left on device")


def killed():
    os._exit(9)


def points(monkeypatch, action, do, check, *, fork):
    """Run `do` with `action` at each point in turn, `check` after it; returns the number of points."""
    number = 0
    while True:
        number += 1
        with monkeypatch.context() as patch:
            if fork:
                if (pid := os.fork()) == 0:
                    status = 1
                    try:
                        fail_at(patch, number, action)
                        do(number)
                        status = 0
                    finally:
                        os._exit(status)
                ended = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
                assert ended in (0, 9)
                through = ended == 0
            else:
                count = fail_at(patch, number, action)
                try:
                    do(number)
                except OSError as error:
                    assert error.errno == errno.ENOSPC
                through = count[0] < number
        check(number)
        if through:
            return number - 1


MODES = [pytest.param((disk_full, False), id="disk-full"), pytest.param((killed, True), id="kill")]


def rest(folder):
    """What interrupted work left lying about."""
    return [
        p for p in folder.rglob("*") if p.name.startswith("tmp") or p.name.endswith((".partial", ".damaged"))
    ]


@pytest.mark.parametrize("mode", MODES)
def test_installing_from_a_bundle(mode, monkeypatch, registry, publish, keys, tmp_path):
    action, fork = mode
    first = publish(registry)
    second = publish(registry, "two")
    media = [bundle.build(registry, version, tmp_path / "media", keys) for version in (1, 2)]

    def site(number):
        return SiteStore(tmp_path / f"site-{number}")

    def do(number):
        store = site(number)
        bundle.import_bundle(media[1], store.layout, keys)
        store.fetch(store.layout, keys)
        store.prune(1, set())

    def check(number):
        store = site(number)
        listed = store.releases()
        assert listed in ([first], [first, second], [second])
        for item in listed:
            assert image.matches(store.layout, item.image, store.path(item).parent, max_bytes=1 << 20)
            assert release.get(store.layout, item.version, keys) == item
        assert release.latest(store.layout, keys) in (first, second)
        do(number)
        assert store.releases() == [second]
        assert rest(store.folder) == []
        assert len(store.layout.blobs()) == 6
        prepare(number + 1)

    def prepare(number):
        store = site(number)
        bundle.import_bundle(media[0], store.layout, keys)
        store.fetch(store.layout, keys)

    prepare(1)
    assert points(monkeypatch, action, do, check, fork=fork) > 40


@pytest.mark.parametrize("mode", MODES)
def test_a_first_install_from_a_registry(mode, monkeypatch, registry, publish, keys, tmp_path):
    action, fork = mode
    first = publish(registry)

    def do(number):
        SiteStore(tmp_path / f"site-{number}").fetch(registry, keys)

    def check(number):
        store = SiteStore(tmp_path / f"site-{number}")
        assert store.releases() in ([], [first])
        do(number)
        assert store.releases() == [first]
        assert image.matches(store.layout, first.image, store.path(first).parent, max_bytes=1 << 20)
        assert rest(store.folder) == []

    assert points(monkeypatch, action, do, check, fork=fork) > 30


@pytest.mark.parametrize("mode", MODES)
def test_publishing(mode, monkeypatch, publish, keys, tmp_path):
    action, fork = mode

    def do(number):
        layout = Layout(tmp_path / f"registry-{number}")
        publish(layout)
        publish(layout, "two")

    def check(number):
        layout = Layout(tmp_path / f"registry-{number}")
        versions = [item.version for item in all_releases(layout, keys)]
        assert versions in ([], [1], [1, 2])
        assert (release.latest(layout, keys) is None) == (versions == [])
        publish(layout, "two")
        assert release.latest(layout, keys).version == max(versions[:1], default=0) + 1
        layout.collect()
        assert rest(layout.path) == []

    assert points(monkeypatch, action, do, check, fork=fork) > 25


@pytest.mark.parametrize("mode", MODES)
def test_building_a_bundle(mode, monkeypatch, registry, publish, keys, tmp_path):
    action, fork = mode
    first = publish(registry)

    def do(number):
        bundle.build(registry, 1, tmp_path / f"media-{number}", keys)

    def check(number):
        for path in (tmp_path / f"media-{number}").glob("*.bundle"):
            assert bundle.verify(path, keys) == first
        do(number)
        assert rest(tmp_path / f"media-{number}") == []

    assert points(monkeypatch, action, do, check, fork=fork) >= 4


def test_making_keys(monkeypatch, tmp_path):
    def do(number):
        signing.create(tmp_path / str(number), "azure")

    def check(number):
        folder = tmp_path / str(number)
        try:
            path = signing.create(folder, "azure")
        except KeyFileError:  # the pair was made, only the last sync failed
            path = folder / "azure.pem"
        assert signing.load_private(path).public_key() == signing.load_public(signing.public_path(path))

    assert points(monkeypatch, disk_full, do, check, fork=False) >= 3


def test_nothing_becomes_visible_before_it_is_on_disk(monkeypatch, registry, publish, keys, tmp_path):
    """A power cut keeps what was synced: content before its name, that before what relies on it."""
    synced, problems, waiting = set(), [], set()
    replace, fsync = os.replace, os.fsync

    def on_fsync(handle):
        path = os.readlink(f"/proc/self/fd/{handle}")
        synced.add(path)
        waiting.discard(path)
        fsync(handle)

    def on_replace(source, target):
        if waiting:
            problems.append(f"{target} appears while {waiting} may still be undone")
        parts = [p for p in Path(source).rglob("*") if p.is_file()] if os.path.isdir(source) else [source]
        problems.extend(f"{part} was not synced" for part in parts if str(part) not in synced)
        waiting.add(os.path.dirname(target))
        replace(source, target)

    monkeypatch.setattr(os, "fsync", on_fsync)
    monkeypatch.setattr(os, "replace", on_replace)
    publish(registry)
    store = SiteStore(tmp_path / "site")
    path = bundle.build(registry, 1, tmp_path / "media", keys)
    bundle.import_bundle(path, store.layout, keys)
    store.fetch(store.layout, keys)
    assert problems == [] and waiting == set()
    assert any(path.endswith("model.onnx") for path in synced)
