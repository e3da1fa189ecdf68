"""Contract stub: Azure Machine Learning, the routes about command jobs and model versions. What a job asks
for is done: its command runs here, as on a compute of the workspace, with the blobs of a real account.

Source: https://learn.microsoft.com/rest/api/azureml, API versions as the client asks for them; the run
history is undocumented but for what the client reads.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

from edge_ai_assets.resources.storage.account import Account
from edge_ai_assets_tests.contract.control_plane_stub import Asked, Reply, Route, Stub, serving

if TYPE_CHECKING:
    from azure.core.credentials import AccessToken

SUBSCRIPTION, GROUP, NAME = "00000000-0000-0000-0000-000000000001", "rg", "ws"
WORKSPACE = (
    f"/subscriptions/{SUBSCRIPTION}/resourceGroups/{GROUP}"
    f"/providers/Microsoft.MachineLearningServices/workspaces/{NAME}"
)
STORE = "azureml://datastores/lake/paths/"
DISCOVERY = "/discovery"
VERSION = re.compile(r"20\d\d-\d\d-\d\d(-preview)?")
MISSING = Reply(404, {"error": {"code": "UserError", "message": "Not found."}})


class Bearer:
    """A credential that gives one token until it is told another: the client has one cache of tokens a route,
    so counting them says nothing."""

    def __init__(self, token: str = "token-1") -> None:
        self.token = token

    def get_token(self, *scopes: str, **_: Any) -> AccessToken:
        from azure.core.credentials import AccessToken

        return AccessToken(self.token, 2**33)


class AzureMLStub:
    """A workspace with one compute target, `cpu`, and one datastore, `lake`.

    Args:
        lake: the account of the container that the datastore stands for; None when no job is to run: then
            jobs are what a test makes of them.
        compute: environment variables that the compute target gives its jobs.
    """

    def __init__(
        self, stub: Stub, lake: Account | None, container: str, compute: Mapping[str, str] | None
    ) -> None:
        self.stub, self.endpoint, self.ca = stub, stub.endpoint, stub.ca
        self.compute = dict(compute or {})
        self.log = ""
        """What the job that ended last has written."""
        self.lake = lake.container(container) if lake else None
        self.jobs: dict[str, dict[str, Any]] = {}
        self.submitted: list[str] = []
        self.cancelled: list[str] = []
        self.models: dict[tuple[str, str], dict[str, Any]] = {}
        self.environments: dict[str, dict[str, Any]] = {}
        self.course: list[str] = []
        """States that a new job shows, one a look, when no job runs; the last stays."""
        self.error = {"code": "UserError", "message": "Execution failed. User process exited with 1."}
        self.lagging = ""
        """What the run history says of each job, if it is behind."""
        self.threads: list[threading.Thread] = []
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        for method, path, answer in (
            ("GET", WORKSPACE, self._workspace),
            ("GET", DISCOVERY, self._discovery),
            ("PUT", f"{WORKSPACE}/environments/([^/]+)/versions/([^/]+)", self._environment),
            ("GET", f"{WORKSPACE}/jobs/([^/]+)", self._job),
            ("PUT", f"{WORKSPACE}/jobs/([^/]+)", self._submit),
            ("POST", f"{WORKSPACE}/jobs/([^/]+)/cancel", self._cancel),
            ("GET", f"/history/v1.0{WORKSPACE}/runs/([^/]+)/details", self._details),
            ("GET", f"{WORKSPACE}/models/([^/]+)/versions", self._model_versions),
            ("GET", f"{WORKSPACE}/models/([^/]+)/versions/([^/]+)", self._model_version),
            ("PUT", f"{WORKSPACE}/models/([^/]+)/versions/([^/]+)", self._register),
        ):
            stub.route(method, path, self._known(answer) if path != DISCOVERY else answer)
        stub.tokens.add("")  # what a workspace's addresses are is told to everybody

    def section(self) -> dict[str, Any]:
        """[training] of an azure.toml that trains here; `login` makes its credential one that is taken."""
        return {
            "subscription": SUBSCRIPTION,
            "resource_group": GROUP,
            "workspace": NAME,
            "compute": "cpu",
            "endpoint": self.endpoint,
            "ca": self.ca,
        }

    def login(self) -> AbstractContextManager[dict[str, str]]:
        """Environment variables of a machine whose identity may do everything here."""
        return identity("token-1", self.endpoint)

    def _known(self, answer: Route) -> Route:
        """Only who has a token gets an answer."""
        nobody = Reply(401, {"error": {"code": "AuthenticationFailed", "message": "Who are you?"}})
        return lambda asked, match: answer(asked, match) if asked.token else nobody

    def _workspace(self, asked: Asked, match: re.Match[str]) -> Reply:
        place = {"location": "westeurope", "discoveryUrl": f"{self.stub.endpoint}{DISCOVERY}"}
        return Reply(200, {"id": WORKSPACE, "name": NAME, "location": "westeurope", "properties": place})

    def _discovery(self, asked: Asked, match: re.Match[str]) -> Reply:
        return Reply(200, {"api": self.stub.endpoint})

    def _environment(self, asked: Asked, match: re.Match[str]) -> Reply:
        name, version = match.groups()
        self.environments[version] = asked.body["properties"]
        return Reply(
            200, self._resource(f"environments/{name}/versions/{version}", version, asked.body["properties"])
        )

    def _job(self, asked: Asked, match: re.Match[str]) -> Reply:
        job = self.jobs.get(match[1])
        if job is None:
            return MISSING
        if self.lake is None and len(self.course) > 1:
            job["status"] = self.course.pop(0)
        elif self.lake is None:
            job["status"] = self.course[0]
        return Reply(200, self._resource(f"jobs/{match[1]}", match[1], job))

    def _submit(self, asked: Asked, match: re.Match[str]) -> Reply:
        name, job = match[1], asked.body["properties"]
        assert VERSION.fullmatch(asked.query["api-version"])
        assert job["jobType"] == "Command"
        assert job["computeId"] == f"{WORKSPACE}/computes/cpu", job["computeId"]
        assert job["environmentId"].removeprefix("azureml:").startswith(f"{WORKSPACE}/environments/"), job
        assert name not in self.jobs, "the name of a job is taken"
        job["status"] = "Starting"
        job["services"] = {
            "Studio": {"jobServiceType": "Studio", "endpoint": f"https://ml.example/runs/{name}"}
        }
        self.jobs[name] = job
        self.submitted.append(name)
        if self.lake is not None:
            thread = threading.Thread(target=self._run, args=(name, job), daemon=True)
            self.threads.append(thread)
            thread.start()
        return Reply(201, self._resource(f"jobs/{name}", name, job))

    def _cancel(self, asked: Asked, match: re.Match[str]) -> Reply:
        if match[1] not in self.jobs:
            return MISSING
        self.cancelled.append(match[1])
        self.jobs[match[1]]["status"] = "Canceled"
        self.course = ["Canceled"]
        if process := self._processes.get(match[1]):
            process.kill()
        return Reply(202, None, {"Location": f"{self.stub.endpoint}{WORKSPACE}/operations/1"})

    def _details(self, asked: Asked, match: re.Match[str]) -> Reply:
        status = self.lagging or self.jobs[match[1]]["status"]
        error = {"error": {"error": self.error}} if status == "Failed" else {}
        return Reply(200, {"runId": match[1], "status": status, "logFiles": {}, **error})

    def _model_versions(self, asked: Asked, match: re.Match[str]) -> Reply:
        found = [
            self._resource(f"models/{name}/versions/{version}", version, model)
            for (name, version), model in self.models.items()
            if name == match[1]
        ]
        return Reply(200, {"value": found[: int(asked.query["$top"])]}) if found else MISSING

    def _model_version(self, asked: Asked, match: re.Match[str]) -> Reply:
        name, version = match.groups()
        if (name, version) not in self.models:
            return MISSING
        found = self.models[name, version]
        return Reply(200, self._resource(f"models/{name}/versions/{version}", version, found))

    def _register(self, asked: Asked, match: re.Match[str]) -> Reply:
        name, version = match.groups()
        given = asked.body["properties"]
        former = self.models.get((name, version), given)
        if former["modelUri"] != given["modelUri"]:
            return Reply(
                409, {"error": {"code": "UserError", "message": "The path of a version is for ever."}}
            )
        self.models[name, version] = {"properties": {}, "flavors": {}, **given}
        return Reply(
            201, self._resource(f"models/{name}/versions/{version}", version, self.models[name, version])
        )

    def _resource(self, below: str, name: str, properties: dict[str, Any]) -> dict[str, Any]:
        return {"id": f"{WORKSPACE}/{below}", "name": name, "properties": properties}

    def _run(self, name: str, job: dict[str, Any]) -> None:
        """Run a job as its compute would: inputs are copied to it, outputs from it."""
        with tempfile.TemporaryDirectory() as folder:
            here, command = Path(folder), job["command"]
            for given, spec in job["inputs"].items():
                assert spec["jobInputType"] == "uri_file" and spec["mode"] == "Download", spec
                blob = spec["uri"].removeprefix(STORE)
                path = here / "inputs" / given / Path(blob).name
                path.parent.mkdir(parents=True)
                path.write_bytes(self.lake.download_blob(blob).readall())
                command = command.replace(f"${{{{inputs.{given}}}}}", str(path))
            for made in job["outputs"]:
                (here / "outputs" / made).mkdir(parents=True)
                command = command.replace(f"${{{{outputs.{made}}}}}", str(here / "outputs" / made))
            job["status"] = "Running"
            process = subprocess.Popen(
                ["bash", "-c", command],
                cwd=here,
                env={
                    "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
                    "OMP_NUM_THREADS": "1",
                    **self.compute,
                    **job["environmentVariables"],
                },
                stdout=(here / "log.txt").open("wb"),
                stderr=subprocess.STDOUT,
            )
            self._processes[name] = process
            code = process.wait(timeout=300)
            self.log = (here / "log.txt").read_text()
            for made, spec in job["outputs"].items():
                assert spec["jobOutputType"] == "uri_folder" and spec["mode"] == "Upload", spec
                root = here / "outputs" / made
                for path in root.rglob("*"):
                    if path.is_file():
                        blob = f"{spec['uri'].removeprefix(STORE)}{path.relative_to(root).as_posix()}"
                        self.lake.upload_blob(blob, path.read_bytes(), overwrite=True)
        if job["status"] == "Running":
            job["status"] = "Failed" if code else "Completed"


@contextmanager
def workspace(
    folder: Path,
    lake: Account | None = None,
    container: str = "lake",
    compute: Mapping[str, str] | None = None,
) -> Iterator[AzureMLStub]:
    """A workspace until the block ends; nothing that it does not know may have been asked."""
    with serving(folder) as stub:
        made = AzureMLStub(stub, lake, container, compute)
        yield made
        for thread in made.threads:
            thread.join(60)


@contextmanager
def identity(token: str, resource: str = "https://storage.azure.com") -> Iterator[dict[str, str]]:
    """The service on a machine of Azure Machine Learning that gives tokens of its managed identity: the
    environment variables by which it is found, by a job that names its identity, or anybody who does not."""
    secret, client = "known to this machine alone", "00000000-0000-0000-0000-00000000000c"

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: Any) -> None: ...

        def do_GET(self) -> None:
            asked = parse_qs(urlsplit(self.path).query)
            known = self.headers["secret"] == secret and asked.get("clientid", [client]) == [client]
            self.send_response(200 if known and asked["resource"] == [resource] else 403)
            self.end_headers()
            self.wfile.write(json.dumps({"access_token": token, "expires_on": str(2**33)}).encode())

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield {
            "MSI_ENDPOINT": f"http://127.0.0.1:{server.server_address[1]}/msi/token",
            "MSI_SECRET": secret,
            "DEFAULT_IDENTITY_CLIENT_ID": client,
        }
    finally:
        server.shutdown()
        server.server_close()
