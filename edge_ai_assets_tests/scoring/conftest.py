from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from edge_ai_assets.scoring.model import Model
from edge_ai_assets_tests.scoring.serving import Site
from edge_ai_assets_tests.tiny_model import tiny_release


@pytest.fixture(scope="session")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_release(tmp_path_factory.mktemp("release"))


@pytest.fixture(scope="session")
def model(release: Path) -> Model:
    return Model(release)


@pytest.fixture
def site(model: Model, tmp_path: Path) -> Iterator[Site]:
    site = Site(model, tmp_path / "outbox.db")
    yield site
    site.close()


@pytest.fixture(scope="module")
def shared(model: Model, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A site for properties: what one example leaves in it must not matter to the next."""
    site = Site(model, tmp_path_factory.mktemp("shared") / "outbox.db")
    yield site
    site.close()
