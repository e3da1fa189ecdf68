"""Runs a script whose Dagster Pipes go over blobs: `python -m edge_ai_assets.ml.over_blobs WAY MODULE
ARGUMENTS`.

It opens Pipes as the environment says and runs the module, which finds it open. So the script is the same
wherever it runs, and knows nothing of clouds. It is what a job on Azure Machine Learning starts; the other
end is `resources.azure_ml.pipes_blobs`.
"""

from __future__ import annotations

import json
import os
import runpy
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import dagster_pipes as pipes

if TYPE_CHECKING:
    from azure.storage.blob import BlobServiceClient

SECONDS = 5
"""Between two uploads of messages."""


def main(arguments: list[str]) -> None:
    """Run a module with arguments of its own.

    Args:
        arguments: a file that says how the storage account is reached, JSON with endpoint, signature and
            identity; the module's name; its arguments.
    """
    client = _client(Path(arguments[0]))
    sys.argv = arguments[1:]
    with pipes.open_dagster_pipes(
        params_loader=pipes.PipesEnvVarParamsLoader(),  # type: ignore[no-untyped-call]
        context_loader=pipes.PipesAzureBlobStorageContextLoader(client),
        message_writer=_Continuing(client, interval=SECONDS),
    ):
        runpy.run_module(arguments[1], run_name="__main__", alter_sys=True)


def _client(way: Path) -> BlobServiceClient:
    """Of the storage account: as its shared access signature allows if one came along, else as the managed
    identity that was named, or that the machine has, which Azure Machine Learning names."""
    from azure.identity import ManagedIdentityCredential
    from azure.storage.blob import BlobServiceClient

    told = json.loads(way.read_text("utf-8"))
    if signature := told["signature"]:
        return BlobServiceClient(told["endpoint"], credential=signature)
    identity = told["identity"] or os.environ.get("DEFAULT_IDENTITY_CLIENT_ID")
    return BlobServiceClient(told["endpoint"], credential=ManagedIdentityCredential(client_id=identity))


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
