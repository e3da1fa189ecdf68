from __future__ import annotations

import socket

import pytest

from edge_ai_assets.resources.calling.patience import Patience, Unavailable
from edge_ai_assets.resources.storage.account import Account
from edge_ai_assets.resources.storage.patient_blobs import PatientBlobs
from edge_ai_assets_tests.contract.azure_ml import Bearer
from edge_ai_assets_tests.contract.control_plane_stub import Time


@pytest.mark.parametrize("ask", ["get", "has"])
def test_an_account_out_of_reach_is_waited_for_said_and_given_up_on_in_the_end(ask, caplog):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    time = Time()
    account = Account(f"https://127.0.0.1:{port}/acct", Bearer(), connect_seconds=1.0)
    blobs = PatientBlobs(account, "lake", Patience(100, 2, 30, time.sleep, time.clock))
    with pytest.raises(Unavailable, match=rf"127.0.0.1:{port} is out of reach"):
        getattr(blobs, ask)("training_set/5e7.parquet")
    assert 60 < time.now <= 100
    assert "trying again" in caplog.text
