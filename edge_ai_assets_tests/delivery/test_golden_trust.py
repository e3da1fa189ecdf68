"""A bundle of format 3 from 2026 and the root metadata that a site of then trusts: both are read for ever.

Written once, by `write`. They are not compared byte by byte with what is written today: python-tuf notes in
every document which version of the specification it implements.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
import time_machine

from edge_ai_assets.delivery import attest, bundle, ceremony, image, release, signing
from edge_ai_assets.delivery.errors import StaleError
from edge_ai_assets.delivery.layout import Layout
from edge_ai_assets.delivery.store import SiteStore
from edge_ai_assets.delivery.trust import Trust
from edge_ai_assets.ml.lineage import Lineage

GOLDEN = Path(__file__).parents[1] / "golden"
BUNDLE, ROOT = "pump-station-1-trust.bundle", "root-1.json"
MADE, LATER = "2026-01-02T00:00:00Z", "2026-06-30T00:00:00Z"


def write(folder: Path) -> None:
    """The private keys are made, used and forgotten."""
    with tempfile.TemporaryDirectory() as name, time_machine.travel(MADE, tick=False):
        scratch = Path(name)
        model, keys, layout = scratch / "model", scratch / "keys", Layout(scratch / "registry")
        model.mkdir()
        for each in image.FILES:
            (model / each).write_text(f"{each} of the golden bundle\n")
        ceremony.make(keys)
        ceremony.rotate(keys, layout.path, "targets", "release", "targets-2")
        made = image.build(model, layout, annotations={})
        came_from = Lineage(training_run="run-1", training_set="set-1", usecase="digest")
        release.publish(
            layout,
            image=made,
            usecase="pump-station",
            run_id="run-1",
            data_version="set-1",
            metrics={"f1": 0.9},
            key=signing.load_private(keys / "release.pem"),
            attached=attest.attach(
                layout, made, model, usecase="pump-station", came_from=came_from, metrics={}
            ),
            authority=ceremony.authority(keys),
        )
        root = ceremony.first_root(keys)
        path = bundle.build(layout, 1, scratch / "media", Trust(root, layout))
        (folder / BUNDLE).write_bytes(path.read_bytes())
        (folder / ROOT).write_bytes(root)


@pytest.fixture
def store(tmp_path):
    return SiteStore(tmp_path / "site")


@pytest.fixture
def trust(store):
    return Trust((GOLDEN / ROOT).read_bytes(), store.layout)


def test_it_is_read_and_installed(store, trust):
    with time_machine.travel(LATER, tick=False):
        found = bundle.import_bundle(GOLDEN / BUNDLE, store.layout, trust)
        assert store.fetch(store.layout, trust) == found
    assert (found.usecase, found.version, found.format) == ("pump-station", 1, 2)
    assert set(found.attached) == {"sbom", "provenance"}
    assert (store.path(found) / "model.onnx").read_text() == "model.onnx of the golden bundle\n"
    assert set(store.layout.tags()) == {
        *("image-1", "latest", "provenance-1", "release-1", "sbom-1", "trust"),
    }


def test_after_its_lease_it_is_stale(trust):
    with time_machine.travel("2026-07-02T00:00:00Z", tick=False), pytest.raises(StaleError):
        bundle.verify(GOLDEN / BUNDLE, trust)
