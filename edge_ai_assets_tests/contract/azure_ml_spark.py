"""Contract stub: Azure Machine Learning, the routes about Spark jobs and the code that travels with them. The
code goes to a container of a real account; a job runs when its end is looked at.

Source: https://learn.microsoft.com/rest/api/azureml, as `azure_ml`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from edge_ai_assets.resources.storage.account import Account
from edge_ai_assets_tests.contract.azure_ml import MISSING, WORKSPACE, AzureMLStub
from edge_ai_assets_tests.contract.control_plane_stub import Asked, Reply


class SparkJobs:
    """Adds them to a workspace.

    Args:
        code: account and container that code is uploaded to.
        run: does what a job asks for; its state when it ended.
    """

    def __init__(
        self, workspace: AzureMLStub, code: Account, container: str, run: Callable[[dict[str, Any]], str]
    ) -> None:
        self.code, self.container, self.run = code, container, run
        self.jobs: dict[str, dict[str, Any]] = {}
        self.codes: dict[str, str] = {}
        """Blobs of uploaded code by the code's id."""
        stub = workspace.stub
        # Before the workspace's own, which are about command jobs.
        stub.routes[:0] = [
            (method, re.compile(path), answer)
            for method, path, answer in (
                ("GET", f"{WORKSPACE}/codes/([^/]+)/versions", self._list),
                ("POST", f"{WORKSPACE}/codes/([^/]+)/versions/([^/]+)/startPendingUpload", self._upload),
                ("PUT", f"{WORKSPACE}/codes/([^/]+)/versions/([^/]+)", self._register),
                ("GET", f"{WORKSPACE}/jobs/([^/]+)", self._job),
                ("PUT", f"{WORKSPACE}/jobs/([^/]+)", self._submit),
            )
        ]

    def _list(self, asked: Asked, match: re.Match[str]) -> Reply:
        return Reply(200, {"value": []})

    def _upload(self, asked: Asked, match: re.Match[str]) -> Reply:
        from azure.storage.blob import ContainerSasPermissions, generate_container_sas

        assert asked.body["pendingUploadType"] == "TemporaryBlobReference"
        key: Any = self.code.credential
        signature = generate_container_sas(
            key.named_key.name,
            self.container,
            key.named_key.key,
            permission=ContainerSasPermissions(read=True, create=True, write=True, list=True, add=True),
            expiry=datetime.now(UTC) + timedelta(hours=1),
        )
        place = f"{self.code.endpoint}/{self.container}"
        reference = {
            "blobUri": place,
            "storageAccountArmId": "/subscriptions/s",
            "credential": {"credentialType": "SAS", "sasUri": f"{place}?{signature}"},
        }
        answer = {"blobReferenceForConsumption": reference, "pendingUploadType": "TemporaryBlobReference"}
        return Reply(200, {"pendingUploadId": "1", **answer})

    def _register(self, asked: Asked, match: re.Match[str]) -> Reply:
        identity = f"{WORKSPACE}/codes/{match[1]}/versions/{match[2]}"
        self.codes[identity] = asked.body["properties"]["codeUri"]
        return Reply(201, {"id": identity, "name": match[2], "properties": asked.body["properties"]})

    def _job(self, asked: Asked, match: re.Match[str]) -> Reply:
        if (job := self.jobs.get(match[1])) is None:
            return MISSING
        if job["status"] == "Running":
            job["status"] = self.run(job)
        elif job["status"] == "Queued":
            job["status"] = "Running"
        return Reply(200, {"id": f"{WORKSPACE}/jobs/{match[1]}", "name": match[1], "properties": job})

    def _submit(self, asked: Asked, match: re.Match[str]) -> Reply:
        job = asked.body["properties"]
        assert job["jobType"] == "Spark" and job["codeId"].removeprefix("azureml:") in self.codes, job
        assert job["entry"] == {"sparkJobEntryType": "SparkJobPythonEntry", "file": "spark_features.py"}
        assert re.fullmatch(r"standard_e(4|8|16|32|64)s_v3", job["resources"]["instanceType"])
        assert match[1] not in self.jobs, "the name of a job is taken"
        job["status"] = "Queued"
        self.jobs[match[1]] = job
        return Reply(201, {"id": f"{WORKSPACE}/jobs/{match[1]}", "name": match[1], "properties": job})
