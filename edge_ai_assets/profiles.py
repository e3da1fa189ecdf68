"""The two profiles: Azure's side and a site's side, a section for each service that can be real.

A section that is absent leaves its service as it is embedded. What the fields hold is `profile_values`'
matter, where they are read from `settings`', what is made of them `resources.configured`'s.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, JsonValue, model_validator

from edge_ai_assets.profile_values import (
    Address,
    ApiVersion,
    Container,
    Credential,
    Entra,
    Guid,
    Kind,
    Name,
    Part,
    Repository,
    Secret,
    TokenCredential,
)

ARM = "https://management.azure.com"
POWER_BI = "https://api.powerbi.com"
HUB_API_VERSION = "2019-07-07"
Certificates = Annotated[Path, Kind("a path of a PEM file")]
CA = "Certificates that are trusted there instead of the system's."


class Storage(Part):
    """Azure's storage account: lake, landing zone, arriving packages and the static site."""

    endpoint: Address = Field(description="Of its blobs, such as https://acct.blob.core.windows.net.")
    credential: Credential = Field(description="Who we are there.")
    ca: Certificates | None = Field(None, description=CA)
    lake: Container = Field("lake", description="Container of the lake and its Delta tables.")
    landing: Container = Field("landing", description="Container that files of readings are landed in.")
    uplink: Container = Field("uplink", description="Container that the sites send packages to.")
    site: Container = Field("$web", description="Container of the static website.")


class _Managed(Part):
    """What lies in a resource group and is managed over Azure Resource Manager."""

    subscription: Guid = Field(description="The subscription.")
    resource_group: Name = Field(description="The resource group.")
    credential: TokenCredential = Field(
        default_factory=lambda: TokenCredential(entra=Entra()), description="Who we are there."
    )
    endpoint: Address = Field(ARM, description="Azure Resource Manager; another one in a sovereign cloud.")
    ca: Certificates | None = Field(None, description=CA)


class Ingestion(_Managed):
    """Data Factory, which lands files of readings."""

    factory: Name = Field(description="The data factory.")
    pipeline: Name = Field(description="The pipeline that lands files.")
    parameters: dict[str, JsonValue] = Field(
        default_factory=dict, description="The pipeline's parameters, by name; in the environment as JSON."
    )


class Training(_Managed):
    """Azure Machine Learning, which trains."""

    workspace: Name = Field(description="The workspace.")
    compute: Name = Field(description="The compute target.")
    experiment: Name = Field("edge-ai", description="Experiment that the jobs are listed under.")
    datastore: Name = Field("lake", description="Datastore that stands for the lake's container there.")
    image: Name | None = Field(
        None, description="Docker image with conda that jobs run on; Azure's own with Ubuntu when absent."
    )
    identity: Guid | None = Field(
        None, description="Client id of the identity that jobs run as; the compute's own when absent."
    )
    hours: Annotated[float, Field(gt=0, le=720), Kind("a number of hours, at most 720")] = Field(
        12.0, description="After which a job is cancelled, waiting for a machine included."
    )


class Features(Part):
    """The engine that makes features."""

    engine: Annotated[
        Literal["duckdb", "spark-azureml", "spark-livy"],
        Kind('"duckdb", "spark-azureml" or "spark-livy"'),
    ] = Field("duckdb", description="DuckDB in process, Spark of the training workspace, or Spark by Livy.")
    endpoint: Address | None = Field(None, description="Livy, such as https://acct.azurehdinsight.net/livy.")
    user: Name | None = Field(None, description="Livy's user.")
    password: Secret | None = Field(None, description="Livy's password.")
    ca: Certificates | None = Field(None, description=CA)
    instance: Annotated[
        Literal[
            "standard_e4s_v3", "standard_e8s_v3", "standard_e16s_v3", "standard_e32s_v3", "standard_e64s_v3"
        ],
        Kind("standard_e4s_v3, e8s, e16s, e32s or e64s: 4 to 64 cores"),
    ] = Field("standard_e8s_v3", description="Kind of machine, of spark-azureml.")
    machines: Annotated[int, Kind("a number from 1 to 64"), Field(ge=1, le=64)] = Field(
        2, description="Machines that compute beside the driver's, of spark-azureml."
    )

    @model_validator(mode="after")
    def _livy(self) -> Self:
        livy = self.engine == "spark-livy"
        if livy and self.endpoint is None:
            raise ValueError('engine "spark-livy" needs endpoint: where Livy is')
        if not livy and (self.endpoint or self.user or self.password or self.ca):
            raise ValueError(
                f'endpoint, user, password and ca are for engine "spark-livy", it is "{self.engine}"'
            )
        if (self.user is None) != (self.password is None):
            raise ValueError("user and password go together, one of them is missing")
        return self


class Registry(Part):
    """The container registry that releases are pushed to or pulled from."""

    repository: Repository = Field(description="The repository, with its registry.")
    user: Name | None = Field(None, description="User of the token.")
    token: Secret | None = Field(None, description="Password or token of the user.")
    entra: Entra | None = Field(None, description='Microsoft Entra instead: "default", or an application.')
    ca: Certificates | None = Field(None, description=CA)

    @model_validator(mode="after")
    def _who(self) -> Self:
        if (self.user is None) != (self.token is None):
            raise ValueError("user and token go together, one of them is missing")
        if self.token and self.entra:
            raise ValueError("user and token or entra, not both")
        return self


class Publishing(Part):
    """Power BI, whose semantic model is refreshed when insights were published."""

    workspace: Guid = Field(description="The workspace (group).")
    semantic_model: Guid = Field(description="The semantic model (dataset).")
    credential: TokenCredential = Field(
        default_factory=lambda: TokenCredential(entra=Entra()), description="Who we are there."
    )
    endpoint: Address = Field(POWER_BI, description="Power BI's REST API.")


class AzureProfile(Part):
    """Azure's side: `azure.toml`."""

    storage: Storage | None = None
    ingestion: Ingestion | None = None
    training: Training | None = None
    features: Features | None = None
    registry: Registry | None = None
    publishing: Publishing | None = None

    @model_validator(mode="after")
    def _goes_together(self) -> Self:
        if self.features and self.features.engine == "spark-azureml" and self.training is None:
            raise ValueError('[features] engine "spark-azureml" needs [training]: the workspace it runs in')
        if self.features and self.features.engine != "duckdb" and self.storage is None:
            raise ValueError(f'[features] engine "{self.features.engine}" needs [storage]: it reads the lake')
        if self.training and self.storage is None:
            raise ValueError("[training] needs [storage]: jobs read the lake")
        return self


class Uplink(Part):
    """Azure's storage as a site sees it: where its packages go."""

    endpoint: Address = Field(description="Of its blobs, such as https://acct.blob.core.windows.net.")
    container: Container = Field("uplink", description="Container that packages are sent to.")
    credential: Credential = Field(
        description="Who the site is there; a signature needs the rights read, create and write."
    )
    api_version: ApiVersion | None = Field(
        None, description="Version of the storage API that is spoken; the client's own when absent."
    )
    ca: Certificates | None = Field(None, description=CA)
    mebibytes_under_way: Annotated[int, Field(ge=1, le=64), Kind("a whole number from 1 to 64")] = Field(
        1,
        description="Most that has left and not come through, and that a cut costs. Raise it on a long and "
        "fast link: to half as much again as it carries in a round trip, 2 for 20 Mbit/s over a satellite.",
    )


class HubQueue(Part):
    """The hub's own storage, for sites whose road is `queue`: letters and notes for its function."""

    queues: Address = Field(description="Of its queues, such as https://acct.queue.region.hub.example.")
    blobs: Address = Field(description="Of its blobs, such as https://acct.blob.region.hub.example.")
    credential: Credential = Field(description="Who the site is there.")
    notes: Container = Field("egress", description="Container of the notes for the function.")
    api_version: ApiVersion = Field(
        HUB_API_VERSION, description="Version of the storage API that is spoken; the newest that a hub knows."
    )
    ca: Certificates | None = Field(None, description=CA)


class StackHubProfile(Part):
    """A site's side: `stack_hub.toml`."""

    uplink: Uplink | None = None
    queue: HubQueue | None = None
    registry: Registry | None = None
