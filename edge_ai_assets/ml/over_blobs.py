"""Runs a script whose Dagster Pipes go over blobs: `python -m edge_ai_assets.ml.over_blobs MODULE ARGUMENTS`.

It opens Pipes as the environment says and runs the module, which finds it open. So the script is the same
wherever it runs, and knows nothing of clouds. It is what a job on Azure Machine Learning starts; the other
end is `resources.pipes_blobs`.
"""

from __future__ import annotations

import os
import runpy
import sys
from collections.abc import Mapping
from typing import IO, TYPE_CHECKING, Any

import dagster_pipes as pipes

if TYPE_CHECKING:
    from azure.storage.blob import BlobServiceClient

SECONDS = 5
"""Between two uploads of messages."""


def main(arguments: list[str]) -> None:
    """Run the module that comes first, with the rest as its arguments."""
    loader = pipes.PipesEnvVarParamsLoader()  # type: ignore[no-untyped-call]
    client = _client(loader.load_context_params())
    sys.argv = arguments
    with pipes.open_dagster_pipes(
        params_loader=loader,
        context_loader=pipes.PipesAzureBlobStorageContextLoader(client),
        message_writer=_Continuing(client, interval=SECONDS),
    ):
        runpy.run_module(arguments[0], run_name="__main__", alter_sys=True)


def _client(params: Mapping[str, Any]) -> BlobServiceClient:
    """Of the storage account: as its shared access signature allows if one came along, else as the managed
    identity that was named, or that the machine has, which Azure Machine Learning names."""
    from azure.identity import ManagedIdentityCredential
    from azure.storage.blob import BlobServiceClient

    if signature := params["signature"]:
        return BlobServiceClient(params["endpoint"], credential=signature)
    identity = params["identity"] or os.environ.get("DEFAULT_IDENTITY_CLIENT_ID")
    return BlobServiceClient(params["endpoint"], credential=ManagedIdentityCredential(client_id=identity))


class _Continuing(pipes.PipesAzureBlobStorageMessageWriter):
    """Numbers its messages after those that are there: a job whose machine was taken away starts anew, and
    a name is written once."""

    def make_channel(self, params: Mapping[str, Any]) -> _Channel:
        folder = self._client.get_container_client(params["bucket"])
        there = sum(1 for _ in folder.list_blob_names(name_starts_with=f"{params['key_prefix']}/"))
        return _Channel(
            self._client, params["bucket"], params["key_prefix"], interval=self.interval, there=there
        )


class _Channel(pipes.PipesAzureBlobStorageMessageWriterChannel):
    def __init__(self, client: Any, bucket: str, prefix: str, *, interval: float, there: int) -> None:
        super().__init__(client, bucket, prefix, interval=interval)
        self._there = there

    def upload_messages_chunk(self, payload: IO[str], index: int) -> None:
        super().upload_messages_chunk(payload, index + self._there)


if __name__ == "__main__":
    main(sys.argv[1:])
