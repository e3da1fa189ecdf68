"""The resource that assets call: what is owed to a far end that was out of reach; a home that comes back."""

from __future__ import annotations

import dagster as dg
import pytest

from edge_ai_assets.home import Home, point
from edge_ai_assets.profiles import AzureProfile
from edge_ai_assets.resources.mirror.blob_mirror import MirrorError
from edge_ai_assets.resources.mirror.home_mirror import NOTES, HomeMirror
from edge_ai_assets_tests.integration.azurite import KEYS, azurite
from edge_ai_assets_tests.integration.faults import Proxy

pytestmark = pytest.mark.integration
__all__ = ["azurite"]


@pytest.fixture
def home(tmp_path):
    home = Home(tmp_path / "home")
    for path in (
        home.raw_telemetry / "a.parquet",
        home.training_sets / "b.parquet",
        home.candidates / "one/model.onnx",
        home.candidates / "two/half",
        home.report / "index.html",
    ):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(path.name.encode())
    point(home.champion, home.candidates / "one")
    return home


@pytest.fixture(scope="module")
def lake(azurite):
    azurite.container("$web")
    return azurite.container("mirrored")


@pytest.fixture
def profile(azurite, lake, monkeypatch):
    monkeypatch.setenv("CLOUD_KEY", KEYS["cloud"])

    def profile(port=azurite.blobs, container=lake):
        storage = {
            "endpoint": f"http://127.0.0.1:{port}/cloud",
            "credential": {"key": {"env": "CLOUD_KEY"}},
            "lake": container,
        }
        return AzureProfile.model_validate({"storage": storage})

    return profile


def far(azurite, container):
    return set(azurite.account("cloud").container(container).list_blob_names())


def test_without_storage_nothing_is_done(home):
    assert HomeMirror(home).push(home.raw_telemetry, home.champion) == {}
    assert not (home.root / NOTES).exists()
    with pytest.raises(MirrorError, match=r"write \[storage\]"):
        HomeMirror(home).pull()


def test_what_could_not_go_goes_with_the_next_push_of_anything(azurite, lake, home, profile, tmp_path):
    with Proxy(azurite.blobs, cut_after=0) as proxy:
        mirror = HomeMirror(home, profile(proxy.port))
        said = mirror.push(home.raw_telemetry, home.quarantine)
        assert said["mirrored_files"] == 0 and "out of reach" in said["mirror_behind"]
        proxy.restore()
        # Another process, as it were, and another asset.
        said = HomeMirror(home, profile(proxy.port)).push(home.champion)
        assert said == {
            "mirrored_files": 3,
            "mirrored_bytes": len(b"a.parquet" + b"model.onnx" + b"candidates/one"),
            "mirrored_to": dg.MetadataValue.url(f"http://127.0.0.1:{proxy.port}/cloud/{lake}"),
        }
    assert far(azurite, lake) == {
        "raw_telemetry/a.parquet",
        "models/candidates/one/model.onnx",
        "models/champion",
    }
    HomeMirror(home, profile()).push(home.training_sets, home.report)
    assert far(azurite, "$web") == {"index.html"}
    back = Home(tmp_path / "back")
    assert HomeMirror(back, profile()).pull().files == 4
    assert back.champion.resolve() == back.candidates / "one"
    assert (back.training_sets / "b.parquet").read_bytes() == b"b.parquet"
    assert HomeMirror(back, profile()).push(back.champion, back.training_sets)["mirrored_files"] == 0


def test_a_refusal_is_raised_and_not_owed(azurite, lake, home, profile):
    mirror = HomeMirror(home, profile(container="elsewhere"))
    for _ in range(2):
        with pytest.raises(MirrorError, match="create it"):
            mirror.push(home.raw_telemetry)
    said = HomeMirror(home, profile()).push(home.report)
    assert said["mirrored_files"] <= 1
