"""What is told about an image beside it, and that it travels and is refused with the release."""

from __future__ import annotations

import base64
import json

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from edge_ai_assets.delivery import attest, bundle, ceremony, image, pack, release
from edge_ai_assets.delivery.errors import DeliveryError, MismatchError
from edge_ai_assets.delivery.layout import Layout
from edge_ai_assets.delivery.manifest import read_manifest
from edge_ai_assets.delivery.store import SiteStore
from edge_ai_assets.delivery.trust import Trust
from edge_ai_assets.home import Home
from edge_ai_assets.ml import environment
from edge_ai_assets.ml.lineage import Lineage
from edge_ai_assets_tests.tiny_model import tiny_release


def model(home, number):
    folder = tiny_release(home.candidates / f"run-{number}", bias=-float(number), usecase=True)
    (folder / "metrics.json").write_text(json.dumps({"f1": 0.9, "rows": 10}))
    (folder / "model_card.md").write_text("A tiny model.")
    (folder / environment.NAME).write_bytes(environment.describe())
    Lineage(training_run=f"run-{number}", training_set=f"set-{number}", usecase="d1").write(folder)
    return folder


@pytest.fixture
def home(tmp_path):
    made = Home(tmp_path / "azure")
    pack.release(model(made, 1), made.registry, made.keys, "tiny")
    return made


@pytest.fixture
def registry(home):
    return Layout(home.registry)


def attached(layout, name, number=1):
    """The documents of an artifact."""
    manifest = read_manifest(layout, layout.resolve(f"{name}-{number}"))
    return manifest, [json.loads(layout.get(layer.digest, max_bytes=4 << 20)) for layer in manifest.layers]


def test_they_are_referrers_of_the_image(home, registry):
    made = pack.newest(home.registry, home.keys)
    assert made.format == 2 and set(made.attached) == {"sbom", "provenance"}
    for name, kind in (("sbom", attest.CYCLONEDX), ("provenance", attest.IN_TOTO)):
        manifest, _ = attached(registry, name)
        assert manifest.subject.digest == made.image and manifest.artifact_type == kind


def test_the_bill_of_materials_names_the_layer_s_files_and_the_environment(registry, home):
    _, (files, python) = attached(registry, "sbom")
    assert [part["name"] for part in files["components"]] == sorted(image.FILES)
    made = pack.newest(home.registry, home.keys)
    (onnx,) = [part for part in files["components"] if part["type"] == "machine-learning-model"]
    assert "sha256:" + onnx["hashes"][0]["content"] == made.model
    assert {"numpy", "scikit-learn"} <= {part["name"] for part in python["components"]}
    assert all(part["purl"].startswith("pkg:pypi/") for part in python["components"])


def test_it_is_cyclonedx(registry):
    validator = JsonStrictValidator(SchemaVersion.V1_6)
    for document in attached(registry, "sbom")[1]:
        assert validator.validate_str(json.dumps(document)) is None


def test_the_provenance_names_training_set_run_code_environment_and_metrics(registry, home):
    made = pack.newest(home.registry, home.keys)
    _, (found,) = attached(registry, "provenance")
    assert (found["_type"], found["predicateType"]) == (attest.STATEMENT, attest.PREDICATE)
    assert {part["digest"]["sha256"] for part in found["subject"]} == {made.image[7:], made.model[7:]}
    said = found["predicate"]
    assert said["runDetails"]["metadata"]["invocationId"] == "run-1"
    depends = {part["name"]: part for part in said["buildDefinition"]["resolvedDependencies"]}
    assert depends["training set"]["uri"].endswith(":set-1")
    assert depends["edge_ai_assets"]["digest"] == {"sha256": attest.code_version()}
    assert "environment" in depends
    (metrics,) = said["runDetails"]["byproducts"]
    assert json.loads(base64.b64decode(metrics["content"]))["f1"] == 0.9


def test_they_travel_and_an_update_leaves_out_the_environment(home, tmp_path):
    store = SiteStore(tmp_path / "site")
    trust = Trust(ceremony.first_root(home.keys), store.layout)
    first = pack.bundle(home.registry, home.keys, home.media)
    bundle.import_bundle(first, store.layout, trust)
    store.fetch(store.layout, trust)
    assert attached(store.layout, "sbom")[1] == attached(Layout(home.registry), "sbom")[1]
    pack.release(model(home, 2), home.registry, home.keys, "tiny")
    update = pack.bundle(home.registry, home.keys, home.media, have=store.layout.blobs())
    layer = read_manifest(store.layout, store.layout.resolve("image-1")).layers[-1].size
    assert update.stat().st_size < layer + (64 << 10)
    bundle.import_bundle(update, store.layout, trust)
    store.fetch(store.layout, trust)
    assert store.prune(1, set()) and not {"sbom-1", "provenance-1"} & store.layout.tags().keys()
    attached(store.layout, "provenance", 2)


@pytest.mark.parametrize("name", ["sbom", "provenance"])
def test_one_that_is_lost_or_changed_is_no_release(home, registry, tmp_path, name):
    store = SiteStore(tmp_path / "site")
    trust = Trust(ceremony.first_root(home.keys), store.layout)
    layer = read_manifest(registry, registry.resolve(f"{name}-1")).layers[0]
    path = registry.path / "blobs" / "sha256" / layer.digest[7:]
    path.write_bytes(path.read_bytes()[:-1] + b"]")
    with pytest.raises(DeliveryError):
        store.fetch(registry, trust)
    assert not store.releases()


def test_one_about_another_image_is_refused(registry, publish, key, keys, tmp_path, make_model):
    layout = Layout(tmp_path / "other")
    images = [image.build(make_model(name), layout, annotations={}) for name in ("one", "two")]
    lineage = Lineage(training_run="r", training_set="s", usecase="u")
    foreign = attest.attach(
        layout, images[0], make_model("one"), usecase="pump", came_from=lineage, metrics={}
    )
    with pytest.raises(MismatchError, match="about something else"):
        publish(layout, "two", attached=foreign)
    assert not release.versions(layout.tags())


def test_the_same_is_the_same_bytes(home, registry, tmp_path):
    before = pack.newest(home.registry, home.keys)
    blobs = registry.blobs()
    assert pack.release(model(home, 1), home.registry, home.keys, "tiny") == before
    assert registry.blobs() == blobs
