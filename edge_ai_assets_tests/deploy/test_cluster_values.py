"""The values of Dagster's chart, as far as they can be judged without it: against Dagster's own settings,
dagster-k8s, which makes the pods of runs, and Kubernetes' schemas."""

from __future__ import annotations

import json
import re
from pathlib import Path
from types import SimpleNamespace

import dagster as dg
import pytest
import yaml

from edge_ai_assets.azure import pods

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
SIDES = {"azure": "edge_ai_assets.azure", "stack_hub": "edge_ai_assets.stack_hub"}
RESTRICTED = {
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "capabilities": {"drop": ["ALL"]},
}


@pytest.fixture(params=sorted(SIDES))
def side(request):
    return request.param


@pytest.fixture
def values(side):
    return yaml.safe_load((DEPLOY / side / "values.yaml").read_text())


@pytest.fixture
def declared(side):
    return yaml.safe_load((DEPLOY / side / "dagster.yaml").read_text())


def code(values):
    (found,) = values["dagster-user-deployments"]["deployments"]
    return found


def job(values, tags=None):
    """The Job of a run, as dagster-k8s makes it of what the chart hands to launcher and code server."""
    import kubernetes
    from dagster_k8s.container_context import K8sContainerContext
    from dagster_k8s.job import construct_dagster_k8s_job, get_user_defined_k8s_config

    ours = code(values)
    launcher = values["runLauncher"]["config"]["k8sRunLauncher"]
    run = launcher["runK8sConfig"]
    snake = {re.sub("([A-Z])", r"_\1", name).lower(): content for name, content in run.items()}
    both = K8sContainerContext.create_from_config(
        {"k8s": {"image_pull_policy": launcher["imagePullPolicy"], "run_k8s_config": snake}}
    ).merge(
        K8sContainerContext.create_from_config(
            {
                "k8s": {
                    "service_account_name": values["dagster-user-deployments"]["serviceAccount"]["name"],
                    "env_config_maps": [each["name"] for each in ours.get("envConfigMaps", [])],
                    "env_secrets": [each["name"] for each in ours.get("envSecrets", [])],
                    "env": ours["env"],
                    "volumes": ours["volumes"],
                    "volume_mounts": ours["volumeMounts"],
                    "labels": ours["labels"],
                    "resources": ours["resources"],
                    "run_k8s_config": {"pod_spec_config": {"automount_service_account_token": True}},
                }
            }
        )
    )
    if tags:
        both = both.merge(
            K8sContainerContext(
                run_k8s_config=get_user_defined_k8s_config(
                    {name: json.dumps(value) for name, value in tags.items()}
                )
            )
        )
    chart = SimpleNamespace(
        job_image=None,
        dagster_home=values["global"]["dagsterHome"],
        instance_config_map="dagster-instance",
        postgres_password_secret=values["global"]["postgresqlSecretName"],
    )
    config = both.get_k8s_job_config("registry.lan/x:1", chart)
    made = construct_dagster_k8s_job(
        config, ["true"], "dagster-run", component="run_worker", user_defined_k8s_config=both.run_k8s_config
    )
    return kubernetes.client.ApiClient().sanitize_for_serialization(made)


def test_the_cluster_has_the_instance_that_is_declared(values, declared):
    """The chart writes what it has a section for, and after that `additionalInstanceConfig` as it stands."""
    extra = values["additionalInstanceConfig"]
    daemon = values["dagsterDaemon"]
    # Even disabled it is written, as one that queues nothing: the file would have two.
    assert set(daemon["runCoordinator"]) == {"type", "config"}
    assert daemon["runCoordinator"]["type"] == "CustomRunCoordinator"
    written = {
        "telemetry": values["telemetry"],
        "run_coordinator": daemon["runCoordinator"]["config"]["customRunCoordinator"],
    }
    assert not written.keys() & extra.keys()
    assert written | extra == {
        name: content for name, content in declared.items() if name not in ("storage", "compute_logs")
    }
    for section in ("runMonitoring", "runRetries"):
        assert daemon[section] == {"enabled": False}, f"the chart would write {section} a second time"
    assert not daemon["sensors"]["useThreads"]
    assert not daemon["schedules"]["useThreads"]


def test_dagster_takes_what_is_declared(side, values, declared, tmp_path, monkeypatch):
    monkeypatch.setenv("DAGSTER_LOGS_ACCOUNT", "edgeai")
    custom = values["computeLogManager"]["config"]["customComputeLogManager"]
    logs = declared.get("compute_logs", custom)
    assert (logs["module"], logs["class"]) == (custom["module"], custom["class"])
    wanted = {"azure": "AzureBlobComputeLogManager", "stack_hub": "LocalComputeLogManager"}[side]
    for found in (logs, custom):
        text = yaml.safe_dump(
            {**declared, "compute_logs": found, "storage": {"sqlite": {"base_dir": str(tmp_path / "db")}}}
        )
        (tmp_path / "dagster.yaml").write_text(text.replace("/var/lib/edge-ai", str(tmp_path)))
        with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
            assert type(instance.compute_log_manager).__name__ == wanted
            assert not instance.telemetry_enabled
            assert not instance.nux_enabled
            assert instance.run_monitoring_enabled


def test_a_secret_is_in_no_file(values, declared):
    assert declared["storage"] == {"postgres": {"postgres_url": {"env": "DAGSTER_POSTGRES_URL"}}}
    assert values["generatePostgresqlPasswordSecret"] is False
    assert "postgresqlPassword" not in values["postgresql"]


def test_every_pod_of_the_chart_is_restricted(values):
    parts = [values["dagsterWebserver"], values["dagsterDaemon"], code(values)]
    for part in parts:
        assert part["securityContext"] == RESTRICTED
        assert part["podSecurityContext"]["runAsNonRoot"] is True
        assert part["podSecurityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        # Their root cannot be written, and without a dagster.yaml a code server makes a SQLite there.
        assert {"/tmp", values["global"]["dagsterHome"]} <= {
            each["mountPath"] for each in part["volumeMounts"]
        }
        assert {each["name"] for each in part["volumeMounts"]} == {each["name"] for each in part["volumes"]}
        assert part["image"] == parts[0]["image"]
    assert values["dagsterWebserver"]["service"]["port"] > 1024, "not root"
    assert values["dagsterWebserver"]["readinessProbe"]["httpGet"]["port"] == 8080


def test_the_chart_grants_nothing(values):
    """Both its parts would: the second to the account of code and runs, everything with jobs and pods."""
    for part in (values, values["dagster-user-deployments"]):
        assert part["rbacEnabled"] is False
        assert part["serviceAccount"]["create"] is False


def test_what_waits_for_the_code_server_finds_it(values):
    """From busybox 1.29 on `nslookup` of a service's short name finds it and fails; the chart's is 1.28."""
    if busybox := values.get("busybox"):
        assert busybox["image"]["tag"] == "1.28"


def test_the_pod_of_a_run_is_one_that_kubernetes_takes_and_is_restricted(values):
    import kubernetes_validate

    made = job(values)
    kubernetes_validate.validate(made, "1.36", strict=True)
    pod = made["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert container["securityContext"] == RESTRICTED
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["serviceAccountName"] == "dagster"
    assert pod["enableServiceLinks"] is False
    assert container["resources"] == code(values)["resources"]
    labels = made["spec"]["template"]["metadata"]["labels"]
    assert labels["edge-ai-assets/part"] == "code", "policies let it do what code may do"
    assert {mount["name"] for mount in container["volumeMounts"]} == {each["name"] for each in pod["volumes"]}
    assert {"name": "EDGE_AI_HOME", "value": "/var/lib/edge-ai"} in container["env"]


def test_training_gets_nodes_of_its_own():
    import kubernetes_validate

    made = job(yaml.safe_load((DEPLOY / "azure" / "values.yaml").read_text()), pods.TRAINING)
    kubernetes_validate.validate(made, "1.36", strict=True)
    pod = made["spec"]["template"]["spec"]
    assert pod["nodeSelector"] == {pods.POOL: "training"}
    assert [each["key"] for each in pod["tolerations"]] == [pods.POOL]
    assert pod["containers"][0]["resources"]["requests"] == {"cpu": "3", "memory": "8Gi"}
    assert pod["securityContext"]["runAsNonRoot"] is True, "the rest is as for any run"
    assert pods.POOL in (DEPLOY / "azure" / "infra" / "main.bicep").read_text()


def test_code_server_and_module_are_there(side, values, monkeypatch, tmp_path):
    import importlib

    monkeypatch.setenv("EDGE_AI_HOME", str(tmp_path))
    option, module = code(values)["dagsterApiGrpcArgs"]
    assert option == "--module-name"
    assert isinstance(importlib.import_module(module).defs, dg.Definitions)
    assert module == f"{SIDES[side]}.definitions"


def test_a_sites_web_server_sees_the_logs_and_no_keys():
    values = yaml.safe_load((DEPLOY / "stack_hub" / "values.yaml").read_text())
    logs = values["computeLogManager"]["config"]["customComputeLogManager"]["config"]["base_dir"]
    (mount,) = [each for each in values["dagsterWebserver"]["volumeMounts"] if each["name"] == "home"]
    assert (mount["mountPath"], mount["subPath"]) == (logs, "logs")


def test_a_site_reaches_its_disks_on_their_node():
    values = yaml.safe_load((DEPLOY / "stack_hub" / "values.yaml").read_text())
    pod = job(values)["spec"]["template"]["spec"]
    for affinity in (pod["affinity"], values["dagsterWebserver"]["affinity"]):
        (beside,) = affinity["podAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
        assert beside["labelSelector"]["matchLabels"].items() <= code(values)["labels"].items()
