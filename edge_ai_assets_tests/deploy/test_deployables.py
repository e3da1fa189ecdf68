"""Images and the function: what they are built of exists, and what is said twice is said the same way."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path

import pytest

from edge_ai_assets import local
from edge_ai_assets.home import Home
from edge_ai_assets.returns.hub.handling import TRIES
from edge_ai_assets.runtimes.manifests import USER
from edge_ai_assets.settings import Settings

CHECKOUT = Path(__file__).resolve().parents[2]
DEPLOY = CHECKOUT / "deploy"
FILES = sorted(DEPLOY.rglob("*Containerfile"))
FUNCTIONS = DEPLOY / "functions"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(DEPLOY)))
def test_an_image_runs_as_the_one_user_and_copies_what_is_there(path):
    text = path.read_text()
    assert re.findall(r"(?m)^USER (.+)$", text) == [f"{USER}:{USER}"]
    if path != DEPLOY / "runtime" / "Containerfile":  # that one's context is made by build.sh
        for sources in re.findall(r"(?m)^COPY (?!--from)(.+) \S+$", text):
            assert all((CHECKOUT / source).exists() for source in sources.split())


def test_the_images_extras_are_there_and_bring_what_a_cluster_needs():
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    text = (DEPLOY / "Containerfile").read_text()
    named = {each for found in re.findall(r"EXTRAS=([a-z,-]+)", text) for each in found.split(",")}
    assert named == {"azure", "stack-hub", "cluster"}
    assert named <= set(extras)
    brought = " ".join(extras["cluster"])
    assert "dagster-k8s==" in brought
    assert "dagster-postgres==" in brought


def test_both_ways_to_the_runtime_image_end_the_same():
    def end(path):
        return path.read_text().partition("# ORT_DISABLE_TELEMETRY")[2]

    assert end(DEPLOY / "runtime" / "Containerfile") == end(DEPLOY / "runtime" / "acr.Containerfile") != ""


def test_the_function_has_the_settings_that_the_example_lists():
    hosts = {"FUNCTIONS_WORKER_RUNTIME", "AzureWebJobsStorage", "HUB_STORAGE"}
    read = set()
    for name in ("function_app.py", "worker.py"):
        read |= set(re.findall(r'os\.environ\["(\w+)"\]', (FUNCTIONS / name).read_text()))
    example = json.loads((FUNCTIONS / "local.settings.example.json").read_text())
    assert set(example["Values"]) == hosts | read
    (checked,) = re.findall(r"SETTINGS = \((.*?)\)", (FUNCTIONS / "worker.py").read_text(), re.S)
    assert set(re.findall(r'"(\w+)"', checked)) == read


def test_the_host_tries_as_often_as_the_letters_are_told():
    queues = json.loads((FUNCTIONS / "host.json").read_text())["extensions"]["queues"]
    assert queues["maxDequeueCount"] == TRIES
    assert queues["batchSize"] == 1


def test_the_guides_settings_of_a_site_are_settings_of_ours(monkeypatch, tmp_path):
    (block,) = re.findall(
        r"```bash\n# settings.env.*?\n(.*?)```", (CHECKOUT / "docs" / "stack-hub.md").read_text(), re.S
    )
    for line in block.strip().splitlines():
        name, _, value = line.partition("=")
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("EDGE_AI_HOME", str(tmp_path))
    site = Settings.load().stack_hub
    assert site.uplink.credential.sas.env == "UPLINK_SAS"
    assert site.queue.api_version == "2019-07-07"


def test_the_guides_name_files_that_are_there():
    for name in ("azure.md", "stack-hub.md", "deploying.md"):
        text = (CHECKOUT / "docs" / name).read_text()
        for path in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text):
            assert (CHECKOUT / "docs" / path).exists(), f"{name}: {path}"
        for path in re.findall(r"\b(deploy/(?:azure|functions|runtime|stack_hub|vm)\b[\w./-]*\w)", text):
            assert (CHECKOUT / path).exists(), f"{name}: {path}"


def test_a_home_with_a_dagster_yaml_gives_dagster_that_one(tmp_path):
    home = Home(tmp_path / "home")
    local.set_up(home)
    assert (home.dagster / "dagster.yaml").read_text() == (CHECKOUT / "dagster.yaml").read_text()
    home.instance.write_text(f"storage: {{sqlite: {{base_dir: {tmp_path / 'elsewhere'}}}}}\n")
    local.set_up(home)
    assert (tmp_path / "elsewhere").is_dir()
