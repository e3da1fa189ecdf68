"""Spark without a cluster of one's own: serverless Spark jobs of an Azure Machine Learning workspace.

What a job is to do is `engine`'s, how a workspace is talked to `azure_ml.workspace`'s.
Source: https://learn.microsoft.com/azure/machine-learning/how-to-submit-spark-jobs.
"""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from edge_ai_assets.ml import spark_features
from edge_ai_assets.resources.azure_ml.workspace import ENDED, Workspace
from edge_ai_assets.resources.calling.patience import Patience
from edge_ai_assets.resources.spark.engine import SCRIPT, Look

if TYPE_CHECKING:
    from azure.ai.ml.entities import Job

RUNTIME = "3.5"
"""Version of Spark: the newest that the service has, and the one that our tests run."""


@dataclass(frozen=True)
class ServerlessSpark:
    """Jobs of a workspace, see `engine.Cluster`.

    Args:
        instance: kind of machine: standard_e4s_v3, e8s, e16s, e32s or e64s, with 4 to 64 cores.
        machines: executors, a machine each beside the driver's.
        identity: client id of the managed identity that jobs run as; None for the workspace's own. It needs
            the role Storage Blob Data Contributor in the lake.
    """

    workspace: Workspace = field(repr=False)
    experiment: str = "edge-ai"
    instance: str = "standard_e8s_v3"
    machines: int = 2
    identity: str | None = None

    @property
    def patience(self) -> Patience:
        return self.workspace.patience

    def look(self, name: str) -> Look | None:
        job = self.workspace.find(name)
        return Look(str(job.status), job.status in ENDED, job.status == "Completed") if job else None

    def start(self, name: str, script: str, arguments: Sequence[str]) -> None:
        with TemporaryDirectory() as code:
            shutil.copy(spark_features.__file__, code)
            self.workspace.start(name, lambda: self.job(name, arguments, code))

    def cancel(self, name: str) -> None:
        self.workspace.cancel(name)

    def why(self, name: str) -> str:
        return self.workspace.why(name)

    def job(self, name: str, arguments: Sequence[str], code: str) -> Job:
        """The job, ready to be submitted; its script, in the folder `code`, travels with it."""
        from azure.ai.ml import spark
        from azure.ai.ml.entities import Job

        cores = _cores(self.instance)
        job = spark(
            name=name,
            display_name=name,
            experiment_name=self.experiment,
            code=code,
            entry={"file": SCRIPT},
            args=shlex.join(arguments),
            resources={"instance_type": self.instance, "runtime_version": RUNTIME},
            identity={"type": "managed", **({"client_id": self.identity} if self.identity else {})},
            driver_cores=cores,
            driver_memory=f"{7 * cores}g",
            executor_cores=cores,
            executor_memory=f"{7 * cores}g",
            executor_instances=self.machines,
        )
        assert isinstance(job, Job)
        return job


def _cores(instance: str) -> int:
    """Of a machine: they have 8 GB a core, of which the service keeps some."""
    return int(instance.removeprefix("standard_e").partition("s")[0])
