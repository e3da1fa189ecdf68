from __future__ import annotations

from pathlib import Path

import pytest

from edge_ai_assets.scoring.model import Model
from edge_ai_assets_tests.tiny_model import tiny_release


@pytest.fixture(scope="session")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_release(tmp_path_factory.mktemp("release"))


@pytest.fixture(scope="session")
def model(release: Path) -> Model:
    return Model(release)
