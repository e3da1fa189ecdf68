"""The function without its host, as a hub runs it: a process that deals with letters until told to end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from edge_ai_assets_tests.integration.azurite import azurite
from edge_ai_assets_tests.integration.test_azurite_functions import CHECKOUT, Plant, plant
from edge_ai_assets_tests.returns.conftest import batch, contract, key, record, small

pytestmark = pytest.mark.integration
__all__ = ["azurite", "batch", "contract", "key", "plant", "record", "small"]
FOLDER = CHECKOUT / "deploy" / "functions"


def test_letters_become_packages_until_sigterm_and_the_hub_is_spoken_to_in_its_version(plant: Plant, batch):
    plant.fill(batch, 300)
    sent = plant.enqueue()
    environment = {**os.environ, **plant.environment, "PYTHONPATH": str(CHECKOUT)}
    process = subprocess.Popen([sys.executable, "worker.py"], cwd=FOLDER, env=environment)
    try:
        until = time.monotonic() + 120
        while plant.queue("receipts").count() < sent.letters:
            assert process.poll() is None
            assert time.monotonic() < until
            time.sleep(0.2)
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=60) == 0
    finally:
        process.kill()
    settled = plant.settle()
    assert (settled.receipts, settled.waiting) == (sent.letters, 0)
    plant.check(150, 1, 150)  # and every request to the hub had its version
