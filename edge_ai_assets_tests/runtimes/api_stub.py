"""A contract stub of Kubernetes' API server: the real client's requests are checked, controllers are played.

No cluster: it knows the few kinds we send, checks what an API server insists on, and moves a rollout one step
each time its Deployment is read. How a release fares is in `fate`, by its digest.
"""

from __future__ import annotations

import copy
import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple
from urllib.parse import parse_qs, urlsplit

from edge_ai_assets.runtimes.manifests import RELEASE

PATHS = {
    "/api/v1": {"configmaps", "persistentvolumeclaims", "pods", "services", "serviceaccounts"},
    "/apis/apps/v1": {"deployments"},
    "/apis/networking.k8s.io/v1": {"networkpolicies"},
    "/apis/policy/v1": {"poddisruptionbudgets"},
}
CALL = re.compile(r"(/api/v1|/apis/[^/]+/v1)/namespaces/([^/]+)/([a-z]+)(?:/([^/]+))?")
CRASHED = {"exitCode": 1, "reason": "Error", "message": '{"message": "model.onnx is damaged"}\n'}
NOT_PULLED = {"waiting": {"reason": "ImagePullBackOff", "message": "manifest unknown"}}


class Asked(NamedTuple):
    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: Any


class ApiStub:
    """Objects of one namespace, what was asked, and how releases fare.

    `fate` is by digest: ready (the default), hang, crash, unpullable or full.
    """

    def __init__(self) -> None:
        self.namespace = "edge"
        self.objects: dict[tuple[str, str], dict[str, Any]] = {}
        self.fate: dict[str, str] = {}
        self.asked: list[Asked] = []
        self.faults: Callable[[Asked], int | None] = lambda asked: None
        """An HTTP status to fail a request with; 0 to hang up."""
        self.managers: dict[tuple[str, str], str] = {}
        self.steps = 0
        self.lock = threading.Lock()

    def kind(self, plural: str) -> list[dict[str, Any]]:
        return [value for (kind, _), value in self.objects.items() if kind == plural]

    def answer(self, asked: Asked) -> tuple[int, dict[str, Any]]:
        match = CALL.fullmatch(asked.path)
        assert match, f"no such path: {asked.path}"
        api, namespace, plural, name = match.groups()
        assert plural in PATHS[api], f"{plural} are not in {api}"
        if namespace != self.namespace:
            return status(404, f'namespaces "{namespace}" not found')
        if asked.method == "PATCH":
            return self._apply(asked, plural, name)
        if asked.method == "GET" and name is None:
            wanted = dict(part.split("=") for part in asked.query["labelSelector"].split(","))
            found = [
                each for each in self.kind(plural) if wanted.items() <= each["metadata"]["labels"].items()
            ]
            return 200, {"items": found}
        if (plural, name) not in self.objects:
            return status(404, f'{plural} "{name}" not found')
        if asked.method == "DELETE":
            del self.objects[plural, name]
            if plural == "deployments":
                for pod in [key for key in self.objects if key[0] == "pods"]:
                    del self.objects[pod]
            return status(200, "")
        if plural == "deployments":
            self._control(self.objects[plural, name])
        return 200, self.objects[plural, name]

    def _apply(self, asked: Asked, plural: str, name: str) -> tuple[int, dict[str, Any]]:
        body = asked.body
        assert asked.headers["content-type"] == "application/apply-patch+yaml"
        assert body["metadata"]["name"] == name and body["metadata"]["namespace"] == self.namespace
        assert "resourceVersion" not in body["metadata"] and "managedFields" not in body["metadata"]
        manager, key = asked.query["fieldManager"], (plural, name)
        if self.managers.setdefault(key, manager) != manager and asked.query["force"] != "true":
            return status(409, f'Apply failed with 1 conflict: conflict with "{self.managers[key]}": .spec')
        before = self.objects.get(key)
        if before and before.get("immutable") and before["data"] != body["data"]:
            return status(422, "data: Forbidden: field is immutable when `immutable` is set")
        now = copy.deepcopy(body)
        generation = before["metadata"].get("generation", 1) if before else 1
        if before and before.get("spec") != body.get("spec"):
            generation += 1
        now["metadata"]["generation"] = generation
        now["status"] = before.get("status", {}) if before else {}
        self.objects[key] = now
        return 201 if before is None else 200, now

    def _control(self, deployment: dict[str, Any]) -> None:
        """One step of the controllers: the first only observes, the next ones make pods and end them."""
        self.steps += 1
        was, generation = deployment["status"], deployment["metadata"]["generation"]
        replicas = deployment["spec"]["replicas"]
        template = deployment["spec"]["template"]
        release = template["metadata"]["annotations"][RELEASE]
        if was.get("observedGeneration") != generation:
            # Old conditions and counts stay for a moment, as on a cluster.
            deployment["status"] = {**was, "observedGeneration": generation, "updatedReplicas": 0}
            deployment["status"]["conditions"] = []
            return
        fate = self.fate.get(release, "ready")
        mine = [pod for pod in self.kind("pods") if pod["spec"] == template["spec"]]
        others = [pod for pod in self.kind("pods") if pod["spec"] != template["spec"]]
        if fate == "full":
            condition = {"type": "ReplicaFailure", "status": "True", "message": "exceeded quota: pods"}
            was["conditions"] = [condition, *self._overdue(was)]
            return
        if not mine:
            for number in range(replicas):
                self._make_pod(template, f"{release[7:12]}-{generation}-{number}")
            return
        for pod in mine:
            pod["status"] = self._fared(fate, pod)
        if fate == "ready":
            for pod in others:
                del self.objects["pods", pod["metadata"]["name"]]
            others = []
        deployment["status"] |= {
            "updatedReplicas": len(mine),
            "replicas": len(mine) + len(others),
            "availableReplicas": len(others) + (len(mine) if fate == "ready" else 0),
            "conditions": [] if fate == "ready" else self._overdue(was),
        }

    def _make_pod(self, template: dict[str, Any], suffix: str) -> None:
        name = f"scoring-{suffix}"
        metadata = {
            **copy.deepcopy(template["metadata"]),
            "name": name,
            "creationTimestamp": f"{self.steps:06}",
        }
        self.objects["pods", name] = {"metadata": metadata, "spec": template["spec"], "status": {}}

    def _fared(self, fate: str, pod: dict[str, Any]) -> dict[str, Any]:
        image = pod["spec"]["containers"][0]["image"]
        container: dict[str, Any] = {"image": image, "restartCount": 0, "state": {"running": {}}}
        if fate == "crash":
            restarts = pod["status"].get("containerStatuses", [container])[0]["restartCount"] + 1
            waiting = {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 10s"}}
            container |= {"restartCount": restarts, "state": waiting, "lastState": {"terminated": CRASHED}}
        if fate == "unpullable":
            container["state"] = NOT_PULLED
        ready = {"type": "Ready", "status": "True" if fate == "ready" else "False"}
        return {"conditions": [ready], "containerStatuses": [container]}

    def _overdue(self, was: dict[str, Any]) -> list[dict[str, Any]]:
        """Kubernetes calls a rollout failed after a while: here after some steps."""
        was["waited"] = was.get("waited", 0) + 1
        late = {"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded"}
        return [late] if was["waited"] > 5 else []


def status(code: int, message: str) -> tuple[int, dict[str, Any]]:
    return code, {"kind": "Status", "code": code, "message": message}


@contextmanager
def serving(stub: ApiStub) -> Iterator[str]:
    """The stub behind HTTP; its URL."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = -1  # one packet an answer: else each waits 40 ms for an acknowledgement

        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            body = self.rfile.read(int(self.headers.get("content-length") or 0))
            query = {name: values[-1] for name, values in parse_qs(parts.query).items()}
            headers = {name.lower(): value for name, value in self.headers.items()}
            asked = Asked(self.command, parts.path, query, headers, json.loads(body) if body else None)
            with stub.lock:
                stub.asked.append(asked)
                fault = stub.faults(asked)
                if fault == 0:
                    self.close_connection = True
                    return
                code, found = stub.answer(asked) if fault is None else status(fault, f"{fault} by the test")
                data = json.dumps(found).encode()
            self.send_response(code)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_PATCH = do_DELETE = do_GET  # noqa: N815

        def log_message(self, *arguments: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
