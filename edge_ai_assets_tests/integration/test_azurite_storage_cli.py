"""`edge-ai storage`: a home to its account and back, and a site that is let in by a signature."""

from __future__ import annotations

import json
import stat

import pytest
from typer.testing import CliRunner

from edge_ai_assets.commands.here import NotHere
from edge_ai_assets.commands.storage import storage
from edge_ai_assets.home import Home
from edge_ai_assets.profiles import StackHubProfile
from edge_ai_assets.resources import configured
from edge_ai_assets.resources.uplink.blob_arrivals import sync
from edge_ai_assets.returns.road.link import LinkDown
from edge_ai_assets_tests.integration.azurite import KEYS, azurite
from edge_ai_assets_tests.ports import free_port

pytestmark = pytest.mark.integration
__all__ = ["azurite"]


@pytest.fixture
def run(azurite, tmp_path, monkeypatch):
    """`edge-ai storage` in a home, with an account; what it answers."""
    monkeypatch.setenv("CLOUD_KEY", KEYS["cloud"])

    def run(*arguments, home=None, port=azurite.blobs):
        monkeypatch.setenv("EDGE_AI_HOME", str(home or tmp_path / "home"))
        monkeypatch.setenv("EDGE_AI_AZURE__STORAGE__ENDPOINT", f"http://127.0.0.1:{port}/cloud")
        monkeypatch.setenv("EDGE_AI_AZURE__STORAGE__CREDENTIAL__KEY__ENV", "CLOUD_KEY")
        done = CliRunner().invoke(storage, [*arguments, "--json"], catch_exceptions=False)
        assert done.exit_code == 0
        return json.loads(done.stdout)

    return run


@pytest.fixture(scope="module")
def containers(azurite):
    for name in ("lake", "uplink"):
        azurite.container(name)


def test_a_home_there_and_back(containers, run, tmp_path):
    home = Home(tmp_path / "home")
    home.raw_telemetry.mkdir(parents=True)
    (home.raw_telemetry / "a.parquet").write_bytes(b"x")
    assert run("push")["mirrored_files"] == 1
    assert run("push")["mirrored_files"] == 0
    assert run("pull", home=tmp_path / "other") == {"files": 1, "bytes": 1, "left": []}
    assert (Home(tmp_path / "other").raw_telemetry / "a.parquet").read_bytes() == b"x"
    with pytest.raises(LinkDown, match="out of reach"):
        (home.raw_telemetry / "b.parquet").write_bytes(b"y")
        run("push", port=free_port())


def test_a_site_sends_by_the_signature_that_it_was_given(containers, run, azurite, tmp_path):
    home = Home(tmp_path / "home")
    home.root.mkdir()
    said = run("grant", "bergen", "--to", str(tmp_path / "medium"), "--days", "7")
    path = tmp_path / "medium/bergen.uplink.sas"
    assert said["signature"] == str(path) and stat.S_IMODE(path.stat().st_mode) == 0o600
    section = {
        "endpoint": f"http://127.0.0.1:{azurite.blobs}/cloud",
        "credential": {"sas": {"file": str(path)}},
    }
    uplink = configured.uplink(StackHubProfile.model_validate({"uplink": section}), "bergen")
    uplink.probe()
    package = tmp_path / "bergen-00000001.zip"
    package.write_bytes(b"package")
    digest = "bc4a71180870f7945155fbb02f4b0a2e3faa2a62d6d31b7039013055ed19869a"
    assert uplink.send(package, package.name, digest, lambda first, last: None) == len(b"package")
    assert sync(azurite.account("cloud"), "uplink", tmp_path / "in").fetched == ["bergen/bergen-00000001.zip"]


def test_what_cannot_be_granted_is_said(containers, run, tmp_path, monkeypatch):
    (tmp_path / "home").mkdir()
    with pytest.raises(NotHere, match="it has"):
        run("grant", "atlantis", "--to", str(tmp_path))
    monkeypatch.setenv("EDGE_AI_HOME", str(tmp_path / "home"))
    for name in ("ENDPOINT", "CREDENTIAL__KEY__ENV"):
        monkeypatch.delenv(f"EDGE_AI_AZURE__STORAGE__{name}")
    for command in (["push"], ["pull"], ["grant", "bergen", "--to", str(tmp_path)]):
        with pytest.raises(NotHere, match=r"write \[storage\] into .*azure\.toml"):
            CliRunner().invoke(storage, command, catch_exceptions=False)
