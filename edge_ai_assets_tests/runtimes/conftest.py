"""A runtime of each kind: a real process, and Kubernetes against a contract stub of its API server."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from edge_ai_assets.runtimes import cluster as clusters
from edge_ai_assets.runtimes.cluster import Cluster
from edge_ai_assets.runtimes.interface import Release
from edge_ai_assets.runtimes.kubernetes import KubernetesRuntime
from edge_ai_assets.runtimes.placement import Placement
from edge_ai_assets_tests.runtimes.api_stub import ApiStub, serving


class Time:
    """A clock that only waiting moves."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def wait(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def place() -> Placement:
    return Placement("bergen", "registry.lan/edge/pump", namespace="edge")


@pytest.fixture
def release(tmp_path: Path) -> Callable[..., Release]:
    """A release for tests in which its files are not read."""

    def make(version: int = 1, **changes: int) -> Release:
        return Release(f"sha256:{version:064x}", version, tmp_path, **changes)

    return make


@pytest.fixture
def api() -> ApiStub:
    return ApiStub()


@pytest.fixture
def cluster(api: ApiStub, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    from kubernetes import client

    monkeypatch.setattr(clusters, "BACKOFF_SECONDS", 0)
    with serving(api) as url:
        settings = client.Configuration(host=url)
        settings.api_key = {"authorization": "Bearer secret"}
        connected = clusters.client_of(settings)
        yield Cluster(connected, "edge")
        connected.close()


@pytest.fixture
def clock() -> Time:
    return Time()


@pytest.fixture
def runtime(cluster: Cluster, place: Placement, clock: Time) -> KubernetesRuntime:
    return KubernetesRuntime(cluster, place, wait=clock.wait, clock=clock)
