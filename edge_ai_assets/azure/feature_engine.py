"""The engine that makes features, as the Dagster resource `feature_engine`: what `[features]` chooses.

DuckDB in this process without it. What an engine is asked for, and what it makes, is `ml.feature_plan`'s.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from edge_ai_assets.profiles import AzureProfile, Features, Training
from edge_ai_assets.usecase import UseCase

if TYPE_CHECKING:
    from edge_ai_assets.ml.feature_plan import Manifest
    from edge_ai_assets.ml.training_set import Engine
    from edge_ai_assets.resources.spark.engine import Cluster


@dataclass(frozen=True)
class FeatureEngine:
    """An engine, see `ml.training_set.Engine`.

    Args:
        profile: of Azure's side. Its secrets are fetched when features are made, and not before.
    """

    profile: AzureProfile = field(default_factory=AzureProfile)

    def __call__(self, raw: Path, usecase: UseCase, into: Path) -> Manifest:
        """Raises `dg.Failure` when a cluster is out of reach, refuses, or its job failed; `SecretError`."""
        return self.chosen()(raw, usecase, into)

    def chosen(self) -> Engine:
        from edge_ai_assets.ml import duckdb_features
        from edge_ai_assets.resources import configured
        from edge_ai_assets.resources.spark.engine import SparkEngine

        section, storage = self.profile.features, self.profile.storage
        if section is None or section.engine == "duckdb":
            return duckdb_features.make
        account = configured.storage(self.profile)
        assert account is not None and storage is not None  # the profile sees to it
        if section.engine == "spark-livy":
            return SparkEngine(_livy(section), account, storage.lake)
        training = self.profile.training
        assert training is not None  # likewise
        return SparkEngine(_serverless(section, training), account, storage.lake, training.hours)


def _livy(section: Features) -> Cluster:
    from edge_ai_assets.resources.identity.secret import reveal
    from edge_ai_assets.resources.spark.livy import Livy

    assert section.endpoint is not None
    password = reveal(section.password) if section.password else None
    return Livy(section.endpoint, section.user, password, section.ca)


def _serverless(section: Features, training: Training) -> Cluster:
    from edge_ai_assets.resources import configured
    from edge_ai_assets.resources.spark.azure_ml import ServerlessSpark

    return ServerlessSpark(
        configured.workspace(training),
        training.experiment,
        section.instance,
        section.machines,
        training.identity,
    )
