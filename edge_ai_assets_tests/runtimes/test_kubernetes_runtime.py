from __future__ import annotations

import json
from dataclasses import replace

import pytest

from edge_ai_assets.runtimes import cluster as clusters
from edge_ai_assets.runtimes.cluster import ClusterError, connect
from edge_ai_assets.runtimes.interface import DeploymentFailed
from edge_ai_assets.runtimes.kubernetes import KubernetesRuntime
from edge_ai_assets.runtimes.manifests import RELEASE
from edge_ai_assets.scoring import lease


def serves(api):
    """Releases of the pods that are there."""
    return {pod["metadata"]["annotations"][RELEASE] for pod in api.kind("pods")}


def wanted(api):
    (deployment,) = api.kind("deployments")
    return deployment["metadata"]["annotations"][RELEASE]


def test_what_is_sent_is_server_side_apply_of_each_object_by_one_manager(api, runtime, release):
    runtime.deploy(release())
    applied = [asked for asked in api.asked if asked.method == "PATCH"]
    assert [asked.path for asked in applied[:7]] == [
        "/api/v1/namespaces/edge/serviceaccounts/scoring-bergen",
        *[asked.path for asked in applied if "options" in asked.path],
        "/api/v1/namespaces/edge/persistentvolumeclaims/scoring-bergen-outbox",
        "/apis/networking.k8s.io/v1/namespaces/edge/networkpolicies/scoring-bergen",
        "/api/v1/namespaces/edge/services/scoring-bergen",
        "/apis/policy/v1/namespaces/edge/poddisruptionbudgets/scoring-bergen",
        "/apis/apps/v1/namespaces/edge/deployments/scoring-bergen",
    ]
    for asked in applied:
        assert asked.query == {"fieldManager": "edge-ai-assets", "force": "true"}
        assert asked.headers["content-type"] == "application/apply-patch+yaml"
    assert {asked.headers["authorization"] for asked in api.asked} == {"Bearer secret"}
    assert {asked.method for asked in api.asked} == {"PATCH", "GET"}


def test_a_release_serves_when_its_pods_do_and_not_when_the_status_is_still_the_former_ones(
    api, runtime, release, clock
):
    first, second = release(1), release(2)
    assert runtime.status() is None
    running = runtime.deploy(first)
    assert (running.release_id, running.version) == (first.release_id, 1)
    assert running.url == "http://scoring-bergen.edge.svc:8080"
    steps = api.steps
    runtime.deploy(second)
    assert api.steps - steps >= 3  # a cluster says "all ready" of the former generation first
    assert serves(api) == {second.release_id}
    assert runtime.status() == replace(running, release_id=second.release_id, version=2)


def test_deploying_what_serves_makes_no_pod_anew(api, runtime, release):
    runtime.deploy(release())
    before = [pod["metadata"]["name"] for pod in api.kind("pods")]
    runtime.deploy(release())
    assert [pod["metadata"]["name"] for pod in api.kind("pods")] == before
    assert api.kind("deployments")[0]["metadata"]["generation"] == 1


@pytest.mark.parametrize(
    ("fate", "reason"),
    [
        ("crash", "exit code 1.*it said: model.onnx is damaged"),
        ("unpullable", "its image registry.lan/edge/pump@sha256:0+2 cannot be had .*: manifest unknown"),
        ("hang", "its pod runs but was not ready in time"),
        ("full", "makes no pod for it: exceeded quota: pods"),
    ],
)
def test_a_bad_release_gives_way_to_the_last_good_one(api, runtime, release, fate, reason):
    good, bad = release(1), release(2)
    runtime.deploy(good)
    before = api.kind("deployments")[0]["spec"]
    api.fate[bad.release_id] = fate
    with pytest.raises(
        DeploymentFailed, match=f"site 'bergen': release {bad.release_id} failed: .*{reason}"
    ) as told:
        runtime.deploy(bad)
    assert str(told.value).endswith(f"(release {good.release_id} still serves)")
    assert serves(api) == {good.release_id}
    assert api.kind("deployments")[0]["spec"] == before
    found = runtime.status()
    assert (found.release_id, found.failed.release_id) == (good.release_id, bad.release_id)
    # Another one that works clears it.
    assert runtime.deploy(release(3)).failed is None
    assert runtime.status().failed is None


def test_pods_of_the_last_good_release_serve_all_the_while(api, runtime, release):
    good, bad = release(1), release(2)
    runtime.deploy(good)
    api.fate[bad.release_id] = "crash"
    always = []

    def look(asked):
        always.append(good.release_id in serves(api))

    api.faults = look
    with pytest.raises(DeploymentFailed):
        runtime.deploy(bad)
    assert len(always) > 10
    assert all(always)


def test_the_first_release_of_a_site_has_none_to_go_back_to(api, runtime, release):
    api.fate[release().release_id] = "crash"
    with pytest.raises(DeploymentFailed, match=r"\(no release serves\)$"):
        runtime.deploy(release())
    assert runtime.status() is None
    api.fate.clear()
    assert runtime.deploy(release(2)).version == 2


def test_options_that_do_not_work_give_way_to_those_of_the_last_good_deployment(
    cluster, api, place, release, clock
):
    def runtime(workers):
        return KubernetesRuntime(cluster, replace(place, workers=workers), wait=clock.wait, clock=clock)

    runtime(1).deploy(release())
    api.fate[release().release_id] = "crash"
    before = api.kind("pods")
    with pytest.raises(DeploymentFailed):
        runtime(2).deploy(release())
    volumes = api.kind("deployments")[0]["spec"]["template"]["spec"]["volumes"]
    (used,) = [volume["configMap"]["name"] for volume in volumes if volume["name"] == "options"]
    assert "--workers=1\n" in api.objects["configmaps", used]["data"]["options"]
    assert before[0] in api.kind("pods")


def test_options_that_nobody_uses_any_more_are_removed_after_a_success_only(
    cluster, api, place, release, clock
):
    def options():
        return {name for plural, name in api.objects if plural == "configmaps" and "-options-" in name}

    for workers in (1, 2, 3):
        KubernetesRuntime(cluster, replace(place, workers=workers), wait=clock.wait, clock=clock).deploy(
            release()
        )
        assert len(options()) == 1
    api.fate[release(2).release_id] = "crash"
    with pytest.raises(DeploymentFailed):
        KubernetesRuntime(cluster, place, wait=clock.wait, clock=clock).deploy(release(2))
    assert len(options()) == 2


def test_a_rollout_that_neither_succeeds_nor_fails_ends_at_its_deadline(
    api, runtime, release, clock, monkeypatch
):
    monkeypatch.setattr(api, "_overdue", lambda was: [])
    runtime.deploy(release(1))
    api.fate[release(2).release_id] = "hang"
    began = clock.now
    with pytest.raises(DeploymentFailed, match="not ready within 60 s: its pod runs but was not ready"):
        runtime.deploy(release(2), timeout=60)
    assert 60 <= clock.now - began < 120
    assert wanted(api) == release(1).release_id


def test_a_stumbling_api_server_is_asked_again(api, runtime, release):
    seen = set()

    def fault(asked):
        key = (asked.method, asked.path)
        if key in seen:
            return None
        seen.add(key)
        return 503 if len(seen) % 2 else 0

    api.faults = fault
    assert runtime.deploy(release()).version == 1


def test_an_api_server_that_is_away_for_a_while_costs_time_only(api, runtime, release, clock):
    def fault(asked):
        return 0 if 5 < clock.now < 40 else None

    runtime.deploy(release(1))
    clock.now = 4.0
    api.faults = fault
    assert runtime.deploy(release(2)).version == 2
    assert serves(api) == {release(2).release_id}


def test_when_the_api_server_is_gone_nothing_is_undone_and_deploying_again_finds_out(
    api, runtime, release, clock
):
    runtime.deploy(release(1))
    api.faults = lambda asked: 0 if api.steps > 5 else None
    with pytest.raises(
        DeploymentFailed, match=r"does not answer: .*\(what served goes on, unless this became ready\)"
    ):
        runtime.deploy(release(2), timeout=30)
    with pytest.raises(DeploymentFailed, match="what serves is not known: the API server http"):
        runtime.status()
    with pytest.raises(DeploymentFailed, match="was not stopped"):
        runtime.stop()
    assert wanted(api) == release(2).release_id
    api.faults = lambda asked: None
    assert runtime.deploy(release(2)).version == 2
    assert runtime.status().version == 2


def test_when_the_api_server_goes_before_the_way_back_the_reason_is_told_and_the_next_release_works(
    api, runtime, release
):
    runtime.deploy(release(1))
    api.fate[release(2).release_id] = "crash"
    api.faults = lambda asked: 0 if asked.method == "PATCH" and asked.path.endswith("-record") else None
    with pytest.raises(
        DeploymentFailed, match=r"exit code 1.*\(whether the last good one is wanted again is not known"
    ):
        runtime.deploy(release(2))
    assert release(1).release_id in serves(api)
    api.faults = lambda asked: None
    assert runtime.status().version == 1
    assert runtime.deploy(release(3)).version == 3


@pytest.mark.parametrize("plural", ["serviceaccounts", "deployments", "configmaps"])
def test_what_is_not_allowed_is_told_by_name_and_nothing_is_rolled_out(api, runtime, release, plural):
    api.faults = lambda asked: 403 if asked.method == "PATCH" and f"/{plural}/" in asked.path else None
    with pytest.raises(DeploymentFailed, match="in namespace 'edge' is not allowed: 403 by the test"):
        runtime.deploy(release())
    assert api.kind("pods") == []


def test_a_namespace_that_is_not_there_and_credentials_that_are_not_known(api, runtime, release):
    api.namespace = "other"
    with pytest.raises(DeploymentFailed, match="namespace 'edge' is not there: create it first"):
        runtime.deploy(release())
    api.faults = lambda asked: 401
    with pytest.raises(DeploymentFailed, match="renew the kubeconfig's credentials"):
        runtime.status()


def test_an_object_of_somebody_else_is_not_taken(api, runtime, release):
    api.objects["services", "scoring-bergen"] = {
        "metadata": {"name": "scoring-bergen", "labels": {}},
        "spec": {},
    }
    api.managers["services", "scoring-bergen"] = "helm"
    with pytest.raises(
        DeploymentFailed, match=r'Service scoring-bergen is somebody else.s.*conflict with "helm"'
    ):
        runtime.deploy(release())
    assert api.kind("deployments") == []


def test_changes_of_the_same_moment_are_applied_again_but_not_for_ever(api, runtime, release):
    left = [409, 409]
    api.faults = lambda asked: left.pop() if left and asked.method == "PATCH" else None
    assert runtime.deploy(release()).version == 1
    api.faults = lambda asked: 409 if asked.method == "PATCH" else None
    with pytest.raises(DeploymentFailed, match="changed by others 3 times"):
        runtime.deploy(release(2))


def test_who_changes_the_deployment_meanwhile_is_not_overruled(api, runtime, release):
    runtime.deploy(release(1))
    api.fate[release(2).release_id] = "hang"

    def meddle(asked):
        if asked.method == "GET" and wanted(api) == release(2).release_id:
            api.kind("deployments")[0]["metadata"]["generation"] = 9

    api.faults = meddle
    with pytest.raises(DeploymentFailed, match="somebody changed Deployment scoring-bergen meanwhile"):
        runtime.deploy(release(2))
    assert wanted(api) == release(2).release_id


def test_the_note_of_the_trust_lease_is_where_pods_read_it_and_makes_none_anew(api, runtime, release):
    """Also before the first release; and what it is mounted as is what the service looks for."""
    runtime.trust(b'{"until":"2026-01-01T00:00:00Z","when_stale":"stop"}')
    runtime.deploy(release())
    before = api.kind("pods")
    runtime.trust(b'{"until":"2027-01-01T00:00:00Z","when_stale":"stop"}')
    runtime.deploy(release())
    assert api.kind("pods") == before
    (volume,) = [each for each in before[0]["spec"]["volumes"] if each["name"] == "lease"]
    assert volume["configMap"]["optional"] is True
    note = api.objects["configmaps", volume["configMap"]["name"]]["data"]
    assert json.loads(note[lease.FILE])["until"].startswith("2027")
    (mount,) = [
        each for each in before[0]["spec"]["containers"][0]["volumeMounts"] if each["name"] == "lease"
    ]
    assert (mount["mountPath"], mount["readOnly"]) == (str(lease.MOUNTED), True)


def test_a_note_that_does_not_reach_the_cluster_is_told(api, runtime):
    api.faults = lambda asked: 403
    with pytest.raises(DeploymentFailed, match="does not learn how its trust stands"):
        runtime.trust(b"{}")


def test_stopping_ends_the_pods_and_keeps_the_outbox(api, runtime, release):
    runtime.deploy(release())
    runtime.stop()
    assert runtime.status() is None
    assert api.kind("persistentvolumeclaims")
    (deleted,) = [asked for asked in api.asked if asked.method == "DELETE"]
    assert deleted.path == "/apis/apps/v1/namespaces/edge/deployments/scoring-bergen"
    assert deleted.query == {"propagationPolicy": "Foreground"}
    runtime.stop()
    assert runtime.deploy(release()).version == 1


def test_pods_that_do_not_end_are_told(api, runtime, release, monkeypatch):
    runtime.deploy(release())
    pods = api.kind("pods")
    monkeypatch.setattr(runtime._cluster, "labelled", lambda kind, labels: pods)
    with pytest.raises(TimeoutError, match="did not end in time"):
        runtime.stop()


KUBECONFIG = {
    "apiVersion": "v1",
    "kind": "Config",
    "current-context": "one",
    "contexts": [
        {"name": "one", "context": {"cluster": "a", "user": "u"}},
        {"name": "two", "context": {"cluster": "b", "user": "u"}},
    ],
    "clusters": [
        {"name": "a", "cluster": {"server": "https://10.0.0.1:6443"}},
        {"name": "b", "cluster": {"server": "https://10.0.0.2:6443"}},
    ],
    "users": [{"name": "u", "user": {"token": "abc"}}],
}


@pytest.mark.parametrize(
    ("context", "host"), [(None, "https://10.0.0.1:6443"), ("two", "https://10.0.0.2:6443")]
)
def test_a_kubeconfig_says_where(tmp_path, context, host):
    (tmp_path / "config").write_text(json.dumps(KUBECONFIG))
    settings = connect("edge", kubeconfig=tmp_path / "config", context=context)._client.configuration
    assert settings.host == host
    assert settings.retries.total == clusters.RETRIES


@pytest.mark.parametrize("text", [None, "", "x: [", "{}"])
def test_a_kubeconfig_that_is_none_is_told(tmp_path, text):
    path = tmp_path / "config"
    if text is not None:
        path.write_text(text)
    with pytest.raises(ClusterError, match=f"kubeconfig {path}"):
        connect("edge", kubeconfig=path)


def test_outside_of_a_pod_a_kubeconfig_is_needed(monkeypatch):
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    with pytest.raises(ClusterError, match="this is no pod, and no kubeconfig was given"):
        connect("edge")
