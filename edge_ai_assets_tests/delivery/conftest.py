"""A tiny model, keys and a registry with its releases, shared by the tests of delivery."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from edge_ai_assets.delivery import image, release, signing
from edge_ai_assets.delivery.layout import Layout
from edge_ai_assets.delivery.release import Release
from edge_ai_assets.delivery.trust import Trusted


def all_releases(layout: Layout, keys: Trusted) -> list[Release]:
    """Every release, verified, oldest first."""
    return [release.get(layout, version, keys) for version in release.versions(layout.tags())]


@pytest.fixture
def make_model(tmp_path: Path) -> Callable[[str], Path]:
    """Writes a model folder; the same content gives the same files."""

    def make(content: str = "one") -> Path:
        folder = tmp_path / f"model-{content}"
        folder.mkdir(exist_ok=True)
        for name in image.FILES:
            (folder / name).write_text(f"{name} {content}\n")
        return folder

    return make


@pytest.fixture
def key(tmp_path: Path) -> Any:
    return signing.load_private(signing.create(tmp_path / "keys", "azure"))


@pytest.fixture
def keys(key: Any) -> list[Any]:
    return [key.public_key()]


@pytest.fixture
def registry(tmp_path: Path) -> Layout:
    return Layout(tmp_path / "registry")


@pytest.fixture
def publish(make_model: Any, key: Any) -> Callable[..., Release]:
    """Publishes a model with that content as the next release of a registry."""

    def run(registry: Layout, content: str = "one", **changes: Any) -> Release:
        arguments = {
            "image": image.build(make_model(content), registry, annotations={}),
            "usecase": "pump",
            "run_id": "run-1",
            "data_version": "v1",
            "metrics": {"f1": 0.9},
            "key": key,
            "created": datetime(2026, 1, 2, tzinfo=UTC),
        }
        return release.publish(registry, **{**arguments, **changes})

    return run
