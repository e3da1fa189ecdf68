"""A bundle with a release of format 3 from 2026, a container that somebody else made: it is read for ever.

Written once, by `write`, as the golden bundle of `test_golden_trust` was.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
import time_machine

from edge_ai_assets.delivery import bundle, ceremony, pack
from edge_ai_assets.delivery.errors import ForeignError
from edge_ai_assets.delivery.layout import Layout
from edge_ai_assets.delivery.manifest import digest_of
from edge_ai_assets.delivery.store import SiteStore
from edge_ai_assets.delivery.trust import Trust
from edge_ai_assets_tests.delivery.test_delivery_base import LAYERS, runtime_image

GOLDEN = Path(__file__).parents[1] / "golden"
BUNDLE, ROOT = "translator-1-container.bundle", "root-container.json"
MADE, LATER = "2026-01-02T00:00:00Z", "2026-06-30T00:00:00Z"


def write(folder: Path) -> None:
    """The private keys are made, used and forgotten."""
    with tempfile.TemporaryDirectory() as name, time_machine.travel(MADE, tick=False):
        scratch = Path(name)
        theirs = Layout(scratch / "theirs")
        runtime_image(theirs)
        pack.container(theirs, "runtime", scratch / "registry", scratch / "keys", "translator")
        path = pack.bundle(scratch / "registry", scratch / "keys", scratch / "media")
        (folder / BUNDLE).write_bytes(path.read_bytes())
        (folder / ROOT).write_bytes(ceremony.first_root(scratch / "keys"))


def test_it_is_read_and_installed(tmp_path):
    store = SiteStore(tmp_path / "site")
    trust = Trust((GOLDEN / ROOT).read_bytes(), store.layout)
    with time_machine.travel(LATER, tick=False):
        found = bundle.import_bundle(GOLDEN / BUNDLE, store.layout, trust)
        assert store.fetch(store.layout, trust) == found
    assert (found.usecase, found.version, found.format, found.model) == ("translator", 1, 3, None)
    assert {digest_of(layer) for layer in LAYERS} <= store.layout.blobs()


def test_a_site_without_a_container_engine_refuses_it(tmp_path):
    layout = Layout(tmp_path / "site")
    trust = Trust((GOLDEN / ROOT).read_bytes(), layout)
    with time_machine.travel(LATER, tick=False), pytest.raises(ForeignError, match="is a container"):
        bundle.import_bundle(GOLDEN / BUNDLE, layout, trust, runs_images=False)
    assert not layout.tags()
