"""A release that comes without a link: a bundle that somebody carried to the site."""

from __future__ import annotations

import json
import shutil

import pytest

from edge_ai_assets.delivery import pack
from edge_ai_assets.delivery.errors import DeliveryError
from edge_ai_assets.home import Home
from edge_ai_assets.ml.lineage import Lineage
from edge_ai_assets.returns.link import Link, LinkDown
from edge_ai_assets.stack_hub import delivery, provision
from edge_ai_assets_tests.tiny_model import tiny_release


@pytest.fixture
def home(tmp_path):
    return Home(tmp_path)


def bundle(home, number):
    folder = tiny_release(home.candidates / f"run-{number}", bias=-float(number), usecase=True)
    (folder / "metrics.json").write_text(json.dumps({"f1": 0.9}))
    (folder / "model_card.md").write_text("A tiny model.")
    Lineage(training_run=f"run-{number}", training_set="set", usecase="digest").write(folder)
    pack.release(folder, home.registry, home.keys, "tiny")
    return pack.bundle(home.registry, home.keys, home.media)


@pytest.fixture
def offline(home):
    """A site that got release 1 by its link and then lost it."""
    bundle(home, 1)
    site = provision.provision(home, "north")
    assert delivery.fetch(site, home.registry).version == 1
    Link(site.root).cut()
    site.media.mkdir()
    return site


def test_without_a_link_and_a_bundle_there_is_no_way(home, offline):
    bundle(home, 2)
    with pytest.raises(LinkDown):
        delivery.fetch(offline, home.registry)


def test_a_carried_bundle_is_installed(home, offline):
    shutil.copy(bundle(home, 2), offline.media)
    shutil.rmtree(home.registry)  # nothing but the medium is asked
    assert delivery.fetch(offline, home.registry).version == 2
    assert (delivery.unpacked(offline, delivery.installed(offline)) / "model.onnx").exists()


def test_of_several_the_newest_is_installed_in_whatever_order_they_lie(home, offline):
    for number in (2, 3):
        shutil.copy(bundle(home, number), offline.media)
    assert delivery.fetch(offline, home.registry).version == 3


def test_a_torn_bundle_is_refused_and_changes_nothing(home, offline):
    torn = offline.media / "tiny-2.bundle"
    torn.write_bytes(bundle(home, 2).read_bytes()[:-100])
    with pytest.raises(DeliveryError):
        delivery.fetch(offline, home.registry)
    assert delivery.installed(offline).version == 1
