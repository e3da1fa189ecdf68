"""A release as any container engine runs it, locked down, and as the manifests of a site have it."""

from __future__ import annotations

import json
import socket
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml

from edge_ai_assets.delivery import base, image
from edge_ai_assets.delivery.distribution import Repository
from edge_ai_assets.delivery.layout import Layout
from edge_ai_assets.delivery.push import push
from edge_ai_assets.delivery.registry import Registry
from edge_ai_assets.returns.outbox.outbox import Outbox
from edge_ai_assets.runtimes.interface import Release
from edge_ai_assets.runtimes.manifests import USER, render
from edge_ai_assets.runtimes.placement import PORT, Placement
from edge_ai_assets.runtimes.sideload import oci_archive
from edge_ai_assets_tests.integration import containers, docker_registry
from edge_ai_assets_tests.integration.containers import Engine, run, runtime_base
from edge_ai_assets_tests.scoring.processes import Asking, ask, wait
from edge_ai_assets_tests.tiny_model import tiny_release

pytestmark = pytest.mark.integration

PLACE = Placement("bergen", "registry.bergen.lan/edge/tiny", namespace="edge", outbox="1Gi")
NAME = f"{PLACE.repository}:release-7"
BODY = json.dumps({"records": [{"Pressure [bar]": 2.0, "Temperature": 10.0, "Pump type": "screw"}]}).encode()
JSON = {"Content-Type": "application/json"}
LOCKED = ("--read-only", "--cap-drop=all", "--security-opt=no-new-privileges", "--memory=512m")
INSIDE = f"""
import http.client, sys
asking = http.client.HTTPConnection("127.0.0.1:{PORT}", timeout=10)
asking.request("POST", "/v1/score", {BODY!r}, {{"Content-Type": "application/json"}})
sys.stdout.write(asking.getresponse().read().decode())
"""


class Made(NamedTuple):
    layout: Layout
    digest: str


def model(folder: Path, bias: float = -2.0) -> Path:
    made = tiny_release(folder, usecase=True, bias=bias)
    for name in image.FILES:
        if not (made / name).exists():
            (made / name).write_text("{}\n")
    return made


def release(folder: Path, bias: float = -2.0) -> Made:
    """A model on the runtime image, made from nothing else."""
    layout = Layout(folder / "layout")
    kept = base.keep(runtime_base(), "runtime", layout)
    annotations = {"org.opencontainers.image.title": "tiny"}
    digest = image.build(model(folder / "model", bias), layout, annotations=annotations, base=kept)
    layout.tag("release-7", image.describe(layout, digest))
    return Made(layout, digest)


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    with containers.engine() as made:
        yield made


@pytest.fixture(scope="module")
def made(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Made:
    """A release that came to this machine as a file, and that no registry here knows."""
    folder = tmp_path_factory.mktemp("release")
    found = release(folder)
    archive = oci_archive(found.layout, found.digest, PLACE, 7, folder / "tiny.tar")
    engine.load(f"oci-archive:{archive}:release-7", NAME)
    return found


def scored(volume: Path) -> int:
    with Outbox(volume / "outbox.db", create=False) as outbox:
        return outbox.counts().scored


def log(engine: Engine, container: str) -> str:
    command = ["podman", "--root", str(engine.root), "--runroot", str(engine.runroot), "logs", container]
    return subprocess.run(command, capture_output=True, text=True, check=False).stderr


def test_two_builds_have_the_same_digest(made, tmp_path):
    assert release(tmp_path).digest == made.digest
    assert release(tmp_path / "other", bias=-1.0).digest != made.digest


def test_an_update_is_the_model_and_little_more(made, tmp_path):
    """Blobs that a site which has this release lacks for the next one."""
    update = release(tmp_path, bias=-1.0)
    missing = update.layout.blobs() - made.layout.blobs()
    sizes = [(update.layout.path / "blobs" / "sha256" / digest[7:]).stat().st_size for digest in missing]
    onnx = (tmp_path / "model" / "model.onnx").stat().st_size
    print(f"model.onnx {onnx}, update {sum(sizes)} bytes in {len(sizes)} blobs")
    assert len(missing) == 3  # manifest, config, the model's layer
    assert sum(sizes) < onnx + (64 << 10)


def test_what_the_image_says(engine, made):
    (found,) = json.loads(engine.podman("image", "inspect", f"{PLACE.repository}@{made.digest}"))
    config = found["Config"]
    assert found["Digest"] == made.digest
    assert config["User"] == f"{USER}:{USER}"
    assert "ORT_DISABLE_TELEMETRY=1" in config["Env"]
    assert config["Entrypoint"][:4] == ["python3", "-P", "-m", "edge_ai_assets.scoring.serve"]
    assert not engine.podman("run", "--rm", "--entrypoint=/bin/sh", NAME, "-c", "true", check=False)
    assert found["Size"] < 300e6


def test_without_any_network_it_scores_keeps_the_row_and_drains(engine, made):
    engine.podman(
        "run", "--detach", "--name=alone", "--network=none", *LOCKED, "--volume=alone:/var/lib/edge-ai", NAME,
        "--site=bergen", f"--release-id={made.digest}", "--version=7",
    )  # fmt: skip
    wait(lambda: "the service starts" in log(engine, "alone"))
    found = json.loads(wait(lambda: engine.podman("exec", "alone", "python3", "-c", INSIDE, check=False)))
    assert found["release"] == made.digest
    last = int(found["results"][0]["id"].removeprefix("bergen/"))
    assert engine.podman("exec", "alone", "python3", "-c", "import os; print(os.getuid())") == str(USER)
    written = "open('/opt/x', 'w')"
    assert not engine.podman("exec", "alone", "python3", "-c", f"{written}; print('written')", check=False)
    began = time.monotonic()
    engine.podman("stop", "--time=30", "alone")
    assert time.monotonic() - began < 25  # it ended by itself
    (state,) = json.loads(engine.podman("inspect", "alone", "--format", "[{{json .State}}]"))
    assert (state["ExitCode"], state["OOMKilled"]) == (0, False)
    volume = engine.volume("alone")
    assert scored(volume) == last
    assert (volume / "outbox.db").stat().st_uid == USER


def test_pushed_to_a_registry_and_pulled_from_it_by_the_engine_it_scores(engine, made, tmp_path):
    """What a cluster's node does: it has the image by its digest from a registry that we pushed to."""
    with docker_registry.serving(tmp_path / "server") as server:
        push(made.layout, Registry(Repository(server.repository)))
        name = f"{server.repository}@{made.digest}"
        engine.podman("pull", "--quiet", "--tls-verify=false", name)
    engine.podman(
        "run", "--detach", "--name=pulled", "--network=none", "--pull=never", *LOCKED,
        "--volume=pulled:/var/lib/edge-ai", name, "--site=bergen", f"--release-id={made.digest}",
    )  # fmt: skip
    found = json.loads(wait(lambda: engine.podman("exec", "pulled", "python3", "-c", INSIDE, check=False)))
    assert found["release"] == made.digest
    assert engine.podman("exec", "pulled", "python3", "-c", "import os; print(os.getuid())") == str(USER)
    (said,) = json.loads(engine.podman("inspect", "pulled"))
    assert said["HostConfig"]["ReadonlyRootfs"] is True
    engine.podman("stop", "--time=30", "pulled")


def test_published_on_loopback_it_finishes_what_was_asked_when_it_is_told_to_end(engine, made):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    engine.podman(
        "run", "--detach", "--name=published", f"--publish=127.0.0.1:{port}:{PORT}", *LOCKED,
        "--volume=published:/var/lib/edge-ai", NAME, "--host=0.0.0.0", "--behind-proxy", "--workers=2",
    )  # fmt: skip
    url = f"http://127.0.0.1:{port}"
    containers.answers(lambda: ask(url, "/health/ready"))
    wait(lambda: ask(url, "/health/ready").status == 200)
    with Asking(url) as kept:
        for _ in range(50):
            assert kept.ask("POST", "/v1/score", BODY, JSON).status == 200
        # SIGTERM while the connection is open: it is answered once more, and told to go.
        engine.podman("kill", "--signal=TERM", "published")
        last = kept.ask("POST", "/v1/score", BODY, JSON)
    assert (last.status, last.headers["connection"]) == (200, "close")
    assert engine.podman("wait", "published") == "0"
    assert scored(engine.volume("published")) == 51


def test_two_pods_write_one_outbox_without_a_gap_as_while_releases_change(engine, made):
    """What maxSurge 1 on one ReadWriteOnce volume relies on: containers of one host, one SQLite file."""
    urls = []
    for name in ("former", "newer"):
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        engine.podman(
            "run", "--detach", f"--name={name}", f"--publish=127.0.0.1:{port}:{PORT}", *LOCKED,
            "--volume=shared:/var/lib/edge-ai", NAME, "--site=bergen", "--host=0.0.0.0", "--behind-proxy",
        )  # fmt: skip
        urls.append(f"http://127.0.0.1:{port}")
        containers.answers(lambda url=urls[-1]: ask(url, "/health/ready"))
    ids: list[list[int]] = []

    def score(url: str) -> None:
        with Asking(url) as asking:
            answered = [asking.ask("POST", "/v1/score", BODY, JSON) for _ in range(200)]
        assert {answer.status for answer in answered} == {200}
        ids.append([int(answer.json["results"][0]["id"].partition("/")[2]) for answer in answered])

    with ThreadPoolExecutor() as pool:
        for done in [pool.submit(score, url) for url in urls * 2]:
            done.result()
    engine.podman("stop", "--time=30", "former")
    score(urls[1])
    engine.podman("stop", "--time=30", "newer")
    assert sorted(number for each in ids for number in each) == list(range(1, 1001))
    assert scored(engine.volume("shared")) == 1000


def test_the_manifests_of_a_site_run_as_they_are(engine, made, tmp_path):
    """By `podman kube play`: the image by digest, from the machine's own storage, for no registry has it."""
    with socket.socket() as taken:
        if taken.connect_ex(("127.0.0.1", PORT)) == 0:
            pytest.skip(f"port {PORT} is in use: podman 4 publishes a pod's ports on the machine")
    file = tmp_path / "site.yaml"
    wanted = Release(made.digest, 7, tmp_path, quota=10**9)
    file.write_text(yaml.safe_dump_all(render(PLACE, wanted, timeout=60), sort_keys=False))
    engine.podman("kube", "play", file)
    try:
        url = f"http://127.0.0.1:{PORT}"
        containers.answers(lambda: ask(url, "/health/ready"))
        with Asking(url) as asking:
            got = asking.ask("POST", "/v1/score", BODY, JSON)
        assert (got.status, got.json["release"], got.json["results"][0]["id"]) == (
            200,
            made.digest,
            "bergen/1",
        )
        (pod,) = json.loads(engine.podman("inspect", f"{PLACE.name}-pod-0-scoring"))
        assert pod["HostConfig"]["ReadonlyRootfs"] is True
        assert pod["Config"]["User"] in (str(USER), f"{USER}:{USER}")
        status = Path(f"/proc/{pod['State']['Pid']}/status").read_text()
        said = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
        assert (said["CapEff"], said["NoNewPrivs"], said["Seccomp"]) == ("0" * 16, "1", "2")
    finally:
        engine.podman("kube", "down", file, check=False)
    assert scored(engine.volume(f"{PLACE.name}-outbox")) == 1


def test_a_sideloaded_archive_has_the_name_that_pods_ask_for(made, tmp_path):
    archives = [
        oci_archive(made.layout, made.digest, PLACE, 7, tmp_path / name) for name in ("one.tar", "two.tar")
    ]
    assert archives[0].read_bytes() == archives[1].read_bytes()
    for reference in (f"oci-archive:{archives[0]}", f"oci-archive:{archives[0]}:release-7"):
        found = json.loads(run("skopeo", "inspect", reference))
        assert found["Digest"] == made.digest
        assert found["Os"] == "linux"
