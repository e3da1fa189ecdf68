"""What holds for every runtime: a real supervised process, and Kubernetes against the contract stub."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from edge_ai_assets.runtimes.interface import DeploymentFailed, Release, Runtime
from edge_ai_assets.runtimes.process import ProcessRuntime
from edge_ai_assets_tests.tiny_model import tiny_release


class Tried(NamedTuple):
    runtime: Runtime
    good: Release
    better: Release
    bad: Release


@pytest.fixture(params=["process", "kubernetes"])
def tried(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Tried]:
    releases = []
    for version in (1, 2, 3):
        path = tiny_release(tmp_path / f"release-{version}", bias=-float(version))
        releases.append(Release(f"sha256:{version:064x}", version, path, quota=10**9))
    releases[2].path.joinpath("model.onnx").write_bytes(b"damaged")
    if request.param == "process":
        runtime: Runtime = ProcessRuntime(tmp_path / "site", "bergen")
    else:
        runtime = request.getfixturevalue("runtime")
        request.getfixturevalue("api").fate[releases[2].release_id] = "crash"
    yield Tried(runtime, *releases)
    runtime.stop()


def test_nothing_serves_before_the_first_release_and_stopping_it_is_harmless(tried):
    assert tried.runtime.status() is None
    tried.runtime.stop()
    assert tried.runtime.status() is None


def test_a_release_serves_until_another_takes_over_and_until_it_is_stopped(tried):
    for release in (tried.good, tried.better):
        running = tried.runtime.deploy(release, timeout=60)
        assert (running.release_id, running.version, running.failed) == (
            release.release_id,
            release.version,
            None,
        )
        assert running.url.startswith("http://")
        assert tried.runtime.status() == running
    tried.runtime.stop()
    assert tried.runtime.status() is None


def test_deploying_what_serves_changes_nothing(tried):
    assert tried.runtime.deploy(tried.good, timeout=60) == tried.runtime.deploy(tried.good, timeout=60)


def test_a_bad_release_leaves_the_good_one_and_is_remembered_until_another_works(tried):
    tried.runtime.deploy(tried.good, timeout=60)
    good, bad = tried.good.release_id, tried.bad.release_id
    failed = f"site 'bergen': release {bad} failed: .*release {good} still serves"
    with pytest.raises(DeploymentFailed, match=failed):
        tried.runtime.deploy(tried.bad, timeout=60)
    found = tried.runtime.status()
    assert (found.release_id, found.version) == (good, 1)
    assert found.failed.release_id == bad
    assert tried.runtime.deploy(tried.better, timeout=60).failed is None


def test_a_bad_first_release_serves_nothing_and_a_good_one_follows(tried):
    with pytest.raises(DeploymentFailed, match="no release serves"):
        tried.runtime.deploy(tried.bad, timeout=60)
    assert tried.runtime.status() is None
    assert tried.runtime.deploy(tried.good, timeout=60).version == 1


def test_an_older_release_is_a_release_like_any_other(tried):
    for release in (tried.better, tried.good):
        assert tried.runtime.deploy(release, timeout=60).version == release.version
