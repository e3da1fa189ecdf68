"""The settings choose the engine; without them it is DuckDB, and nothing of Azure or Spark is loaded."""

import subprocess
import sys

import pytest

from edge_ai_assets.azure.feature_engine import FeatureEngine
from edge_ai_assets.ml import duckdb_features
from edge_ai_assets.profiles import AzureProfile
from edge_ai_assets.resources.identity.secret import SecretError

STORAGE = {
    "endpoint": "https://acct.blob.core.windows.net",
    "credential": {"key": {"env": "KEY"}},
    "lake": "lake",
}
TRAINING = {
    "subscription": "00000000-0000-0000-0000-000000000001",
    "resource_group": "rg",
    "workspace": "ws",
    "compute": "cpu",
    "experiment": "pumps",
    "identity": "00000000-0000-0000-0000-000000000002",
    "hours": 3,
}
LIVY = {"engine": "spark-livy", "endpoint": "https://c.azurehdinsight.net/livy", "user": "admin"}


def engine(**sections):
    return FeatureEngine(AzureProfile.model_validate(sections)).chosen()


@pytest.mark.parametrize("sections", [{}, {"features": {"engine": "duckdb"}}, {"storage": STORAGE}])
def test_duckdb_is_what_there_is_without_a_word(sections):
    assert engine(**sections) is duckdb_features.make


def test_livy(monkeypatch):
    monkeypatch.setenv("KEY", "a2V5")
    monkeypatch.setenv("PASSWORD", "word")
    made = engine(storage=STORAGE, features={**LIVY, "password": {"env": "PASSWORD"}})
    assert made.root == "abfss://lake@acct.dfs.core.windows.net"
    assert (made.cluster.endpoint, made.cluster.user, made.cluster.password) == (
        "https://c.azurehdinsight.net/livy",
        "admin",
        "word",
    )
    monkeypatch.delenv("PASSWORD")
    with pytest.raises(SecretError, match="PASSWORD"):
        engine(storage=STORAGE, features={**LIVY, "password": {"env": "PASSWORD"}})


def test_serverless_spark_of_the_training_workspace(monkeypatch):
    monkeypatch.setenv("KEY", "a2V5")
    features = {"engine": "spark-azureml", "instance": "standard_e32s_v3", "machines": 9}
    made = engine(storage=STORAGE, training=TRAINING, features=features)
    assert (made.cluster.instance, made.cluster.machines) == ("standard_e32s_v3", 9)
    assert (made.cluster.workspace.name, made.cluster.experiment, made.lake) == ("ws", "pumps", "lake")


def test_choosing_duckdb_loads_nothing_else():
    code = (
        "import sys; from edge_ai_assets.azure.feature_engine import FeatureEngine; FeatureEngine();"
        "print(*{'pyspark', 'duckdb', 'pandas', 'azure.core', 'pyarrow'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("\n", "")
