from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from edge_ai_assets.runtimes import manifests, placement
from edge_ai_assets.runtimes.manifests import lease, record, render
from edge_ai_assets.runtimes.placement import Placement

DEPLOY = Path(__file__).parents[2] / "deploy" / "stack_hub" / "kubernetes"
GOLDEN = DEPLOY / "examples"
EXPOSED = Placement(
    "narvik",
    "registry.narvik.lan:5000/edge/pump-station",
    namespace="plant",
    replicas=2,
    workers=4,
    outbox="50Gi",
    storage_class="local-path",
    memory="2Gi",
    guard="scoring-guard",
    pull_secret="registry",
)


def of(rendered, kind):
    (found,) = [manifest for manifest in rendered if manifest["kind"] == kind]
    return found


def container(rendered):
    return of(rendered, "Deployment")["spec"]["template"]["spec"]["containers"][0]


@pytest.mark.parametrize("name", ["plain", "exposed"])
def test_manifests_are_what_they_were(name, place, release):
    """A change here is a rollout on every site: it must be meant. Written anew with EDGE_AI_GOLDEN=1."""
    wanted = {"plain": (place, release(7)), "exposed": (EXPOSED, release(8, quota=750_000_000))}[name]
    text = yaml.safe_dump_all(render(*wanted, timeout=120), sort_keys=False, width=120)
    path = GOLDEN / f"{name}.yaml"
    if os.environ.get("EDGE_AI_GOLDEN"):
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    assert text == path.read_text()


@pytest.mark.parametrize("path", sorted(GOLDEN.glob("*.yaml")), ids=lambda path: path.stem)
def test_kubernetes_knows_every_field(path):
    import kubernetes_validate

    found = list(yaml.safe_load_all(path.read_text()))
    assert len(found) == 7
    for manifest in found:
        kubernetes_validate.validate(manifest, "1.36", strict=True)
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate({**found[-1], "spc": {}}, "1.36", strict=True)


def test_what_a_runtime_asks_for_is_what_its_role_allows(api, runtime, release):
    found = {each["kind"]: each for each in yaml.safe_load_all((DEPLOY / "namespace.yaml").read_text())}
    allowed = {
        (resource, verb)
        for rule in found["Role"]["rules"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }
    runtime.deploy(release(1))
    runtime.deploy(release(2, quota=1))
    runtime.stop()
    asked = set()
    for each in api.asked:
        resource, *name = each.path.split("/namespaces/edge/")[1].split("/")
        verb = {"PATCH": "patch", "DELETE": "delete", "GET": "get" if name else "list"}[each.method]
        asked.add((resource, verb))
    # Server-side apply of what is not there is a creation as well.
    asked |= {(resource, "create") for resource, verb in asked if verb == "patch"}
    assert asked == allowed


def test_what_stands_before_a_site_and_the_record_are_valid_too(place):
    import kubernetes_validate

    before = list(yaml.safe_load_all((DEPLOY / "namespace.yaml").read_text()))
    for manifest in [*before, record(place, {"good.json": "{}"}), lease(place, b"{}")]:
        kubernetes_validate.validate(manifest, "1.36", strict=True)


@pytest.mark.parametrize("place", [Placement("bergen", "r.lan/edge/pump"), EXPOSED], ids=["plain", "exposed"])
def test_a_pod_is_restricted_and_has_no_way_out(place, release):
    """What the Pod Security Standard "restricted" asks for, and more."""
    rendered = render(place, release(), timeout=60)
    pod = of(rendered, "Deployment")["spec"]["template"]["spec"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod["automountServiceAccountToken"] is False
    assert of(rendered, "ServiceAccount")["automountServiceAccountToken"] is False
    assert container(rendered)["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert {next(iter(volume.keys() - {"name"})) for volume in pod["volumes"]} <= {
        "configMap",
        "emptyDir",
        "persistentVolumeClaim",
        "secret",
    }
    network = of(rendered, "NetworkPolicy")["spec"]
    assert (network["egress"], network["policyTypes"]) == ([], ["Ingress", "Egress"])


def test_no_pod_ends_before_another_is_ready_and_both_may_write_the_outbox(place, release):
    rendered = render(place, release(), timeout=60)
    deployment = of(rendered, "Deployment")["spec"]
    assert deployment["strategy"]["rollingUpdate"] == {"maxUnavailable": 0, "maxSurge": 1}
    assert of(rendered, "PersistentVolumeClaim")["spec"]["accessModes"] == ["ReadWriteOnce"]
    (beside,) = deployment["template"]["spec"]["affinity"]["podAffinity"][
        "requiredDuringSchedulingIgnoredDuringExecution"
    ]
    labels = deployment["template"]["metadata"]["labels"]
    assert beside["labelSelector"]["matchLabels"].items() <= labels.items()
    assert beside["topologyKey"] == "kubernetes.io/hostname"
    grace = deployment["template"]["spec"]["terminationGracePeriodSeconds"]
    assert grace > manifests.LEAVE_SECONDS + 10  # a service drains within 10 s


def test_selectors_never_change_and_pods_are_selected_by_them(place, release):
    first, second = (render(place, release(version), timeout=60) for version in (1, 2))
    for kind in ("Deployment", "PodDisruptionBudget"):
        assert of(first, kind)["spec"]["selector"] == of(second, kind)["spec"]["selector"]
    labels = of(second, "Deployment")["spec"]["template"]["metadata"]["labels"]
    for kind in ("NetworkPolicy", "Service", "PodDisruptionBudget", "Deployment"):
        spec = of(first, kind)["spec"]
        selector = spec.get("podSelector", spec.get("selector"))
        assert selector.get("matchLabels", selector).items() <= labels.items()


def test_an_update_changes_the_deployment_alone_and_its_image_by_digest(place, release):
    first, second = (render(place, release(version), timeout=60) for version in (1, 2))
    assert first[:-1] == second[:-1]
    images = [container(rendered)["image"] for rendered in (first, second)]
    assert images == [f"registry.lan/edge/pump@{release(version).release_id}" for version in (1, 2)]


def test_other_options_are_another_config_map_and_so_a_rollout(place, release):
    plain, full = render(place, release(), timeout=60), render(place, release(quota=1000), timeout=60)
    assert of(plain, "ConfigMap")["metadata"]["name"] != of(full, "ConfigMap")["metadata"]["name"]
    assert of(plain, "Deployment")["spec"]["template"] != of(full, "Deployment")["spec"]["template"]
    assert "--quota=1000\n" in of(full, "ConfigMap")["data"]["options"]


@pytest.mark.parametrize("place", [Placement("bergen", "r.lan/edge/pump"), EXPOSED], ids=["plain", "exposed"])
def test_the_service_understands_its_options(place, release, tmp_path):
    from edge_ai_assets.scoring import arguments

    rendered = render(place, release(5, quota=1000), timeout=60)
    (tmp_path / "options").write_text(of(rendered, "ConfigMap")["data"]["options"])
    first, *others = container(rendered)["args"]
    assert first == f"@{manifests.OPTIONS}/options"
    found = arguments.parser().parse_args([f"@{tmp_path / 'options'}", "--release=/model", *others])
    assert (found.site, found.version, found.release_id) == (place.site, 5, release(5).release_id)
    assert (found.workers, found.quota, found.port) == (place.workers, 1000, placement.PORT)
    assert found.behind_proxy is (place.guard is None)
    assert (str(found.tokens) if found.tokens else None) == (
        f"{manifests.GUARD}/tokens.json" if place.guard else None
    )


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"site": "-bergen"}, "site '-bergen' is no name"),
        ({"site": "bergen-"}, "site 'bergen-' is no name"),
        ({"site": "x" * 56}, "at most 55"),
        ({"site": "Bergen"}, "no name for Kubernetes"),
        ({"repository": "pump"}, "repository 'pump' is refused"),
        ({"repository": "r.lan/pump:1"}, "without tag or digest"),
        ({"repository": "r.lan/pump@sha256:00"}, "without tag or digest"),
        ({"repository": "https://r.lan/pump"}, "HOST/PATH"),
        ({"outbox": "10 GB"}, "outbox is '10 GB'"),
        ({"outbox": "0"}, "outbox is '0'"),
        ({"memory": "1.5"}, "memory is '1.5'"),
        ({"replicas": 0}, "replicas is 0, it must be from 1 to 8"),
        ({"workers": 65}, "workers is 65"),
    ],
)
def test_what_kubernetes_would_refuse_is_refused_here(place, changes, told):
    with pytest.raises(ValueError, match=told):
        replace(place, **changes)


@pytest.mark.parametrize("site", ["a", "x" * 55, "site-7", "7-site"])
def test_names_fit_into_labels(place, release, site):
    for manifest in render(replace(place, site=site), release(), timeout=60):
        if manifest["kind"] == "Service":
            assert len(manifest["metadata"]["name"]) <= 63
        assert all(len(value) <= 63 for value in manifest["metadata"]["labels"].values())
