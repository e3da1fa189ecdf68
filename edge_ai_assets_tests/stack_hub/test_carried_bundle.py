"""A release that comes without a link: a bundle that somebody carried to the site."""

from __future__ import annotations

import json
import os
import shutil

import pytest

from edge_ai_assets.delivery import bundle as bundles
from edge_ai_assets.delivery import pack, split
from edge_ai_assets.delivery.errors import DeliveryError
from edge_ai_assets.home import Home
from edge_ai_assets.ml.lineage import Lineage
from edge_ai_assets.returns.road.link import Link
from edge_ai_assets.scoring import folder
from edge_ai_assets.scoring.folder import Wish
from edge_ai_assets.stack_hub import delivery, provision, waiting
from edge_ai_assets.usecase import Road
from edge_ai_assets_tests.tiny_model import tiny_release

BY_HAND = [Road.MEDIA, Road.DIODE]


@pytest.fixture
def home(tmp_path):
    return Home(tmp_path)


def release(home, number):
    """The next release in the registry."""
    model = tiny_release(home.candidates / f"run-{number}", bias=-float(number), usecase=True)
    (model / "metrics.json").write_text(json.dumps({"f1": 0.9}))
    (model / "model_card.md").write_text("A tiny model.")
    Lineage(training_run=f"run-{number}", training_set="set", usecase="digest").write(model)
    return pack.release(model, home.registry, home.keys, "tiny")


def bundle(home, number):
    release(home, number)
    return pack.bundle(home.registry, home.keys, home.media)


def fetch(site, home, road=Road.LINK):
    return delivery.fetch(site, home.registry, road).release.version


def deployed(site):
    """Note what deploying would: what the service was asked to run."""
    newest = delivery.installed(site)
    folder.write_wish(site.root, Wish(folder.Release(newest.image, newest.version, "x"), "asked"))


@pytest.fixture
def offline(home):
    """A site that got release 1 by its link and then lost it."""
    bundle(home, 1)
    site = provision.provision(home, "north")
    assert fetch(site, home) == 1
    deployed(site)
    Link(site.root).cut()
    return site


def test_without_a_link_and_a_bundle_it_keeps_what_it_has(home, offline):
    bundle(home, 2)
    assert fetch(offline, home) == 1


def test_a_carried_bundle_is_installed(home, offline):
    shutil.copy(bundle(home, 2), offline.media)
    shutil.rmtree(home.registry)  # nothing but the medium is asked
    assert fetch(offline, home) == 2
    assert (delivery.unpacked(offline, delivery.installed(offline)) / "model.onnx").exists()


@pytest.mark.parametrize("linked", [False, True])
def test_of_several_the_newest_is_installed_in_whatever_order_they_lie(home, offline, linked):
    for name, number in (("z", 2), ("a", 3)):
        shutil.copy(bundle(home, number), offline.media / f"{name}.bundle")
    if linked:
        Link(offline.root).restore()
    assert fetch(offline, home) == 3


def test_an_older_bundle_changes_nothing(home, offline):
    old = bundle(home, 2)
    shutil.copy(bundle(home, 3), offline.media)
    assert fetch(offline, home) == 3
    shutil.copy(old, offline.media / "z-old.bundle")
    fetched = delivery.fetch(offline, home.registry, Road.LINK)
    assert fetched.release.version == 3 and list(fetched.refused) == ["z-old.bundle"]
    assert "older than what is here" in fetched.refused["z-old.bundle"]


def test_a_torn_bundle_is_refused_and_changes_nothing(home, offline):
    torn = offline.media / "tiny-2.bundle"
    torn.write_bytes(bundle(home, 2).read_bytes()[:-100])
    with pytest.raises(DeliveryError):
        fetch(offline, home)
    assert delivery.installed(offline).version == 1
    assert waiting.bundles(offline) is None  # the same bytes are not tried again


def test_a_torn_bundle_is_taken_once_it_is_whole(home, offline):
    """As when it was looked at while somebody was still copying it."""
    whole = bundle(home, 2).read_bytes()
    copied = offline.media / "tiny-2.bundle"
    copied.write_bytes(whole[:-100])
    with pytest.raises(DeliveryError):
        fetch(offline, home)
    copied.write_bytes(whole)
    assert waiting.bundles(offline) and fetch(offline, home) == 2


def test_a_bundle_in_parts_is_put_together_once_all_are_there(home, offline, monkeypatch):
    monkeypatch.setattr(split, "LEAST", 1)
    path = bundle(home, 2)
    index = split.split(path, 20_000)
    parts = sorted(index.parent.glob("*.bundle.*"))
    for part in parts[1:]:
        shutil.copy(part, offline.media)
    with pytest.raises(DeliveryError, match=r"tiny-2.bundle.001 of . parts are missing: copy them again"):
        fetch(offline, home)
    assert waiting.bundles(offline) is None
    shutil.copy(parts[0], offline.media)
    assert waiting.bundles(offline) and fetch(offline, home) == 2


@pytest.mark.parametrize("torn", ["a.bundle", "z.bundle"])
def test_a_torn_bundle_does_not_keep_out_a_good_one_beside_it(home, offline, torn):
    good = bundle(home, 2)
    (offline.media / torn).write_bytes(good.read_bytes()[:-100])
    shutil.copy(good, offline.media / "m.bundle")
    fetched = delivery.fetch(offline, home.registry, Road.LINK)
    assert fetched.release.version == 2 and list(fetched.refused) == [torn]
    assert torn in fetched.refused[torn]


@pytest.mark.parametrize("target", ["/nowhere", "odd.bundle"], ids=["dangling", "to itself"])
def test_a_link_to_nothing_is_refused_and_keeps_no_bundle_from_the_site(home, offline, target):
    (offline.media / "odd.bundle").symlink_to(target)
    shutil.copy(bundle(home, 2), offline.media)
    assert waiting.bundles(offline) is not None
    fetched = delivery.fetch(offline, home.registry, Road.LINK)
    assert fetched.release.version == 2 and list(fetched.refused) == ["odd.bundle"]
    deployed(offline)
    assert waiting.bundles(offline) is None  # looked at once


def test_what_lies_about_by_the_name_of_a_bundle_is_refused(home, offline):
    (offline.media / "folder.bundle").mkdir()
    os.mkfifo(offline.media / "pipe.bundle")
    with pytest.raises(DeliveryError, match=r"is not a regular file|cannot be read"):
        fetch(offline, home)


@pytest.mark.parametrize("road", Road)
def test_a_site_to_which_nothing_ever_came_says_what_to_do(home, road):
    bundle(home, 1)
    site = provision.provision(home, "north")
    Link(site.root).cut()
    with pytest.raises(delivery.NothingInstalled, match=f"no bundle lies in {site.media}: carry one there"):
        fetch(site, home, road)
    assert not site.taken.exists()


@pytest.mark.parametrize("road", Road)
def test_its_very_first_release_can_come_by_hand(home, road):
    made = bundle(home, 1)
    site = provision.provision(home, "north")
    Link(site.root).cut()
    shutil.copy(made, site.media)
    assert waiting.bundles(site) and fetch(site, home, road) == 1


def test_a_linked_site_takes_what_was_carried_also_when_its_registry_is_behind(home, tmp_path):
    """It must not lie there, looked at and never installed; and nothing older takes its place."""
    release(home, 1)
    shutil.copytree(home.registry, tmp_path / "behind")
    carried = bundle(home, 2)
    site = provision.provision(home, "north")
    shutil.copy(carried, site.media)
    found = delivery.fetch(site, tmp_path / "behind", Road.LINK)
    assert "older than what is here" in found.refused["the release in the registry"]
    assert found.release.version == delivery.installed(site).version == 2


def test_a_linked_site_does_not_read_its_own_store_when_nothing_was_carried(home, monkeypatch):
    """It would check every byte of a model twice, at every site."""
    release(home, 1)
    site = provision.provision(home, "north")
    fetched = []
    once = delivery.SiteStore.fetch
    monkeypatch.setattr(
        delivery.SiteStore, "fetch", lambda store, *given: fetched.append(given) or once(store, *given)
    )
    assert fetch(site, home) == 1 and len(fetched) == 1


class TestNoticed:
    """What the sensor `bundle_arrived` sees, through the crashes that may come between."""

    @pytest.fixture
    def carried(self, home, offline):
        shutil.copy(bundle(home, 2), offline.media)
        return offline

    def test_once_and_not_again_when_it_was_deployed(self, home, carried):
        assert waiting.bundles(carried)
        fetch(carried, home)
        deployed(carried)
        assert waiting.bundles(carried) is None

    def test_again_when_the_run_ended_before_it_was_deployed(self, home, carried):
        first = waiting.bundles(carried)
        fetch(carried, home)
        assert waiting.bundles(carried) == first

    def test_again_also_with_a_torn_one_beside_it(self, home, carried):
        fetch(carried, home)
        (carried.media / "torn.bundle").write_bytes(b"torn")
        assert fetch(carried, home) == 2  # no error keeps the run from deploying what is there

    def test_killed_while_it_was_taken_it_still_waits(self, home, carried, monkeypatch):
        def killed(*_, **__):
            raise KeyboardInterrupt

        with monkeypatch.context() as patched:
            patched.setattr(bundles, "import_bundle", killed)
            with pytest.raises(KeyboardInterrupt):
                fetch(carried, home)
        assert waiting.bundles(carried) and fetch(carried, home) == 2

    def test_one_that_came_while_the_others_were_read_still_waits(self, home, carried, monkeypatch):
        third, once = bundle(home, 3), bundles.import_bundle

        def slow(*given, **options):
            shutil.copy(third, carried.media / "a-third.bundle")
            return once(*given, **options)

        with monkeypatch.context() as patched:
            patched.setattr(bundles, "import_bundle", slow)
            assert fetch(carried, home) == 2
        deployed(carried)
        assert waiting.bundles(carried) and fetch(carried, home) == 3

    def test_a_release_that_failed_is_not_tried_for_ever(self, home, carried):
        fetch(carried, home)
        deployed(carried)  # that it was asked for counts, however it ended
        assert not delivery.untried(carried) and waiting.bundles(carried) is None


class TestByHand:
    """A site that everything is carried to, or whose link lets nothing in."""

    @pytest.fixture
    def closed(self, home, monkeypatch):
        """Opening the registry, or asking for the state of the link, fails the test."""
        release(home, 1)
        carried = bundle(home, 2)
        site = provision.provision(home, "north")
        shutil.copy(carried, site.media)
        shutil.rmtree(home.registry)
        home.registry.write_text("no folder: whoever opens it fails")

        def touched(*_):
            raise AssertionError("it looked at its link")

        monkeypatch.setattr(Link, "up", property(touched))
        monkeypatch.setattr(Link, "state", property(touched))
        return site

    @pytest.mark.parametrize("said", ["up", "down", "never set"])
    @pytest.mark.parametrize("road", BY_HAND)
    def test_neither_registry_nor_link_is_looked_at_whatever_link_json_says(self, home, closed, road, said):
        if said != "never set":
            (closed.root / "link.json").write_text(json.dumps({"state": said, "since": "x", "changes": 1}))
        assert fetch(closed, home, road) == 2
        assert fetch(closed, home, road) == 2  # nothing new: still not
        assert not home.uplink.exists() and home.registry.is_file()

    @pytest.mark.parametrize("road", BY_HAND)
    def test_a_newer_release_in_the_registry_does_not_come(self, home, road):
        made = bundle(home, 1)
        site = provision.provision(home, "north")
        shutil.copy(made, site.media)
        release(home, 2)
        assert fetch(site, home, road) == 1
        assert not delivery.SiteStore(site.root).layout.tags().keys() & {"release-2"}

    @pytest.mark.parametrize("road", BY_HAND)
    def test_a_site_without_either_folder_is_fine(self, home, closed, road):
        home.registry.unlink()
        shutil.rmtree(home.media)
        assert fetch(closed, home, road) == 2
        assert not home.registry.exists() and not home.uplink.exists() and not home.media.exists()
