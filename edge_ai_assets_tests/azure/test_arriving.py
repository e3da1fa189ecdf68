"""A container that refuses holds up no package that came by another road."""

from __future__ import annotations

import dagster as dg
import pytest

from edge_ai_assets.azure import automation
from edge_ai_assets.azure.arriving import Arriving, Brought
from edge_ai_assets.home import Home
from edge_ai_assets.profiles import AzureProfile
from edge_ai_assets.resources.identity.secret import SecretError
from edge_ai_assets_tests import sent

UNSET = {"endpoint": "https://acct.blob.example", "credential": {"key": {"env": "EDGE_AI_TESTS_NOT_SET"}}}


@pytest.fixture
def arriving(tmp_path):
    return Arriving(Home(tmp_path), AzureProfile.model_validate({"storage": UNSET}))


def looked(arriving):
    job = dg.define_asset_job("bring_home")
    sensor = automation.packages_arrived(job, arriving.home, arriving)
    return sensor(dg.build_sensor_context(instance=dg.DagsterInstance.ephemeral()))


def test_without_a_container_nothing_is_done(tmp_path):
    nowhere = Arriving(Home(tmp_path))
    assert (nowhere.sync(), nowhere.waiting()) == (Brought(), [])


def test_a_secret_that_is_not_there_is_told(arriving):
    with pytest.raises(SecretError, match="EDGE_AI_TESTS_NOT_SET"):
        looked(arriving)
    assert "EDGE_AI_TESTS_NOT_SET" in (arriving.sync().interrupted or "")


def test_what_was_carried_is_received_all_the_same(arriving):
    (name, data), *_ = sent.chain("bergen", 1)
    folder = arriving.home.uplink / "bergen"
    folder.mkdir(parents=True)
    (folder / name).write_bytes(data)
    assert isinstance(looked(arriving), dg.RunRequest)
