"""Kill -9 at seeded points of taking a release in and switching to it: the old one or the new, never neither.

Points are events of the interpreter (a call begins or ends, of C or of Python), not only calls that write: a
kill also falls between them. That the service itself answers throughout is shown in the integration tests.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import sys
from types import SimpleNamespace

import pytest

from edge_ai_assets.delivery import bundle, ceremony, image, release, signing
from edge_ai_assets.delivery.distribution import Repository
from edge_ai_assets.delivery.push import push
from edge_ai_assets.delivery.registry import Registry
from edge_ai_assets.delivery.store import SiteStore
from edge_ai_assets.delivery.trust import Trust
from edge_ai_assets.scoring import folder
from edge_ai_assets_tests.contract.acr import Acr

POINTS = min(int(os.environ.get("EDGE_AI_KILLS", "64")), 208)
"""On each road; all of them with `make kills`."""
PARTS, SEED = 4, 20260101


def switch(store, made):
    """What the supervisor does to a site's folder when a release takes over."""
    served = folder.Release(made.image, made.version, str(store.path(made)))
    folder.write_wish(store.folder, folder.Wish(served, f"asked for {made.version}"))
    folder.link(store.folder, "current", served)
    folder.write_status(store.folder, folder.Status("north", 1, "1", current=served))


def events(run):
    """How many events of the interpreter `run` makes."""
    count = [0]

    def seen(*_):
        count[0] += 1

    sys.setprofile(seen)
    try:
        run()
    finally:
        sys.setprofile(None)
    return count[0]


def killed_at(point, run):
    """Run in a process of its own that gets SIGKILL at that event; whether it did."""
    if (pid := os.fork()) == 0:
        left = [point]

        def seen(*_):
            left[0] -= 1
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)

        try:
            sys.setprofile(seen)
            run()
            sys.setprofile(None)
        finally:
            os._exit(0)
    ended = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert ended in (0, -signal.SIGKILL)
    return ended != 0


@pytest.fixture
def world(registry, publish, tmp_path):
    ceremony.make(tmp_path / "azure")
    authority = ceremony.authority(tmp_path / "azure")
    key = signing.load_private(tmp_path / "azure" / "release.pem")
    azure = Trust(authority.root, registry)
    before = SiteStore(tmp_path / "before")
    first = publish(registry, key=key, authority=authority)
    before.fetch(registry, Trust(authority.root, before.layout))
    switch(before, first)
    second = publish(registry, "two", key=key, authority=authority)
    update = bundle.build(registry, 2, tmp_path / "media", azure, have=before.layout.blobs())

    def fresh(number):
        shutil.copytree(before.folder, tmp_path / f"site-{number}", symlinks=True)
        store = SiteStore(tmp_path / f"site-{number}")
        switch(store, first)  # the link names its own folder, not the one it was copied from
        return store, Trust(authority.root, store.layout)

    with Acr() as acr:
        push(registry, Registry(Repository(acr.repository)))
        yield SimpleNamespace(
            first=first, second=second, update=update, fresh=fresh, registry=registry, acr=acr
        )


def offline(world, store, trust):
    bundle.import_bundle(world.update, store.layout, trust)
    switch(store, store.fetch(store.layout, trust))
    store.prune(1, set())


def linked(world, store, trust):
    switch(store, store.fetch(world.registry, trust))


def pulled(world, store, trust):
    switch(store, store.fetch(Registry(Repository(world.acr.repository)), trust))


def check(world, store, trust):
    """What the site has now, whole; its trust metadata lists what it has."""
    status = folder.read_status(store.folder)
    current = (store.folder / "current").resolve()
    served = {str(store.path(each)): each for each in (world.first, world.second)}[str(current)]
    assert image.matches(store.layout, served.image, current.parent, max_bytes=1 << 20)
    assert status.version in (1, 2) and os.path.isdir(status.current.path)
    listed = trust.held()
    assert [each.version for each in store.releases()] in ([1], [1, 2], [2])
    for each in store.releases():
        assert release.get(store.layout, each.version, listed) == each
    return served.version


@pytest.mark.parametrize("road", [offline, linked, pulled])
@pytest.mark.parametrize("part", range(PARTS))
def test_old_or_new_never_neither(world, tmp_path, road, part):
    store, trust = world.fresh("counted")
    total = events(lambda: road(world, store, trust))
    assert total > 5_000
    # Later points are likelier to matter: half of them fall into the last third, where names change.
    chance = random.Random(f"{SEED} {road.__name__} {part}")
    count = POINTS // PARTS // 2
    points = [chance.randrange(1, total) for _ in range(count // 2)]
    points += [chance.randrange(total * 2 // 3, total) for _ in range(count - count // 2)]
    seen = set()
    for number, point in enumerate(points):
        store, trust = world.fresh(number)
        killed_at(point, lambda store=store, trust=trust: road(world, store, trust))
        seen.add(check(world, store, trust))
        road(world, store, trust)  # and doing it again ends well
        assert check(world, store, trust) == 2
        shutil.rmtree(store.folder)
    assert 1 in seen
