from __future__ import annotations

import json

import pytest

from edge_ai_assets.runtimes.choice import FILE, ChoiceError, runtime
from edge_ai_assets.runtimes.cluster import ClusterError
from edge_ai_assets.runtimes.kubernetes import KubernetesRuntime
from edge_ai_assets.runtimes.placement import Placement
from edge_ai_assets.runtimes.process import ProcessRuntime
from edge_ai_assets_tests.runtimes.test_kubernetes_runtime import KUBECONFIG

KUBERNETES = 'kind = "kubernetes"\nrepository = "registry.lan/edge/pump"\nkubeconfig = "kube.json"\n'


@pytest.mark.parametrize("text", [None, 'kind = "process"'])
def test_a_process_unless_it_says_otherwise(tmp_path, text):
    if text is not None:
        (tmp_path / FILE).write_text(text)
    assert isinstance(runtime(tmp_path, "bergen"), ProcessRuntime)


def test_a_cluster_with_what_the_site_may_take_there(tmp_path):
    (tmp_path / FILE).write_text(
        KUBERNETES + 'namespace = "plant"\nworkers = 2\ncontext = "two"\noutbox = "50Gi"\n'
    )
    (tmp_path / "kube.json").write_text(json.dumps(KUBECONFIG))
    found = runtime(tmp_path, "bergen")
    assert isinstance(found, KubernetesRuntime)
    assert found._place == Placement(
        "bergen", "registry.lan/edge/pump", namespace="plant", workers=2, outbox="50Gi"
    )
    assert found._cluster._client.configuration.host == "https://10.0.0.2:6443"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("kind = ", "is no TOML"),
        ("", "kind must be 'process' or 'kubernetes', it is None"),
        ('kind = "docker"', "it is 'docker'"),
        ('kind = "process"\nworkers = 2', "'workers' is not known, only kind"),
        ('kind = "kubernetes"', "repository is missing"),
        (KUBERNETES + 'site = "oslo"', "'site' is not known"),
        (KUBERNETES + "workers = true", "workers must be a whole number, it is True"),
        (KUBERNETES + 'workers = "2"', "workers must be a whole number, it is '2'"),
        (KUBERNETES + "namespace = 1", "namespace must be text, it is 1"),
        (KUBERNETES + 'memory = "lots"', "memory is 'lots'"),
    ],
)
def test_what_cannot_be_meant_is_refused_with_the_file_and_the_setting(tmp_path, text, told):
    (tmp_path / FILE).write_text(text)
    with pytest.raises(ChoiceError, match=f"{tmp_path / FILE}.*{told}"):
        runtime(tmp_path, "bergen")


def test_a_kubeconfig_that_is_not_there_is_told(tmp_path):
    (tmp_path / FILE).write_text(KUBERNETES)
    with pytest.raises(ClusterError, match=r"kubeconfig .*kube\.json"):
        runtime(tmp_path, "bergen")
