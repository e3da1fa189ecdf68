"""A Spark session on this machine as a fixture: one for all tests of a module."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

OPTIONS = {
    "spark.ui.enabled": "false",
    "spark.sql.shuffle.partitions": "4",
    "spark.driver.host": "127.0.0.1",
    "spark.driver.memory": "1g",
    # Far from UTC, and not by whole hours: what a time is must not depend on the machine.
    "spark.driver.extraJavaOptions": "-Duser.timezone=Asia/Kolkata",
}


def needed() -> None:
    """Skip the test when Spark cannot run here; in CI it fails."""
    missing = (
        "" if importlib.util.find_spec("pyspark") else "pyspark is not installed: pip install '.[spark]'"
    )
    java = shutil.which("java")
    if not java or subprocess.run([java, "-version"], capture_output=True, timeout=60).returncode:
        missing = "Spark needs Java 17: install openjdk-17-jre-headless"
    if missing:
        pytest.fail(missing) if os.environ.get("CI") else pytest.skip(missing)


@pytest.fixture(scope="module")
def spark() -> Iterator[SparkSession]:
    needed()
    from pyspark.sql import SparkSession

    builder = SparkSession.builder.master("local[2]")
    for name, value in OPTIONS.items():
        builder = builder.config(name, value)
    session = builder.getOrCreate()
    yield session
    session.stop()
