"""What was not trained here: a container that somebody else made, an ONNX file, the runtime image beneath."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from edge_ai_assets import usecase as usecases
from edge_ai_assets.commands import release
from edge_ai_assets.commands.here import NotHere
from edge_ai_assets.delivery import base, bundle, ceremony, pack
from edge_ai_assets.delivery.errors import DeliveryError, ForeignError, MalformedError, MissingError
from edge_ai_assets.delivery.layout import Layout
from edge_ai_assets.delivery.manifest import MANIFEST, digest_of, encode
from edge_ai_assets.delivery.store import SiteStore
from edge_ai_assets.delivery.trust import Trust
from edge_ai_assets.home import Home, SiteHome
from edge_ai_assets.ml.lineage import Lineage
from edge_ai_assets.runtimes.placement import Placement
from edge_ai_assets.runtimes.sideload import oci_archive
from edge_ai_assets.stack_hub import delivery
from edge_ai_assets_tests.delivery.test_delivery_base import LAYERS, runtime_image
from edge_ai_assets_tests.tiny_model import tiny_release

PLACE = Placement("bergen", "registry.bergen.lan/edge/pump")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    monkeypatch.setenv("EDGE_AI_HOME", str(tmp_path / "home"))
    made = Home(tmp_path / "home")
    made.root.mkdir()
    return made


@pytest.fixture
def theirs(tmp_path: Path) -> Layout:
    """An image of somebody else, as skopeo leaves it."""
    layout = Layout(tmp_path / "theirs")
    runtime_image(layout)
    return layout


def run(*arguments: str) -> dict[str, Any]:
    done = CliRunner().invoke(release.release, [*arguments, "--json"], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


def site(home: Home, *, runs_images: bool) -> tuple[SiteStore, Trust]:
    store = SiteStore(home.root / "site", runs_images=runs_images)
    return store, Trust(ceremony.first_root(home.keys), store.layout)


class TestContainer:
    @pytest.fixture
    def released(self, home, theirs):
        return run("container", f"{theirs.path}:runtime")

    def test_it_is_the_very_image_and_the_same_is_the_same_release(self, home, theirs, released):
        assert released["image"] == theirs.tags()["runtime"].digest
        assert run("container", f"{theirs.path}:runtime") == released
        found = pack.newest(home.registry, home.keys)
        assert (found.version, found.model, found.format) == (1, None, 3)

    @pytest.mark.parametrize("road", ["registry", "bundle"])
    def test_it_takes_every_road_to_a_site_with_a_container_engine(self, home, released, tmp_path, road):
        store, trust = site(home, runs_images=True)
        source = Layout(home.registry)
        if road == "bundle":
            bundle.import_bundle(pack.bundle(home.registry, home.keys, tmp_path), store.layout, trust)
            source = store.layout
        found = store.fetch(source, trust)
        assert {digest_of(layer) for layer in LAYERS} <= store.layout.blobs()
        archive = oci_archive(store.layout, found.image, PLACE, 1, tmp_path / "x.tar")
        assert archive.stat().st_size > sum(map(len, LAYERS))

    @pytest.mark.parametrize("road", ["registry", "bundle"])
    def test_a_site_that_runs_models_in_a_process_refuses_it_and_fetches_nothing(
        self, home, released, tmp_path, road
    ):
        store, trust = site(home, runs_images=False)
        with pytest.raises(ForeignError, match="is a container that somebody else made, and this site runs"):
            if road == "bundle":
                path = pack.bundle(home.registry, home.keys, tmp_path)
                bundle.import_bundle(path, store.layout, trust, runs_images=store.runs_images)
            else:
                store.fetch(Layout(home.registry), trust)
        assert store.releases() == [] and not store.layout.tags()
        assert not {digest_of(layer) for layer in LAYERS} & store.layout.blobs()

    def test_it_is_not_run_as_a_model(self, home, released):
        found = pack.newest(home.registry, home.keys)
        with pytest.raises(
            delivery.runtimes.DeploymentFailed, match="what it needs to run is not known here"
        ):
            delivery.deploy(SiteHome(home.root / "sites" / "bergen"), found)

    def test_an_image_of_several_platforms_is_refused(self, home, theirs):
        index = theirs.put(
            encode({"schemaVersion": 2, "manifests": []}), "application/vnd.oci.image.index.v1+json"
        )
        theirs.tag("all", index)
        with pytest.raises(MalformedError, match=re.escape(f"this needs '{MANIFEST}'")):
            run("container", f"{theirs.path}:all")

    def test_a_damaged_one_is_refused(self, home, theirs):
        path = theirs.path / "blobs" / "sha256" / digest_of(LAYERS[0])[7:]
        path.write_bytes(b"x" + path.read_bytes()[1:])
        with pytest.raises(DeliveryError, match="damaged"):
            run("container", f"{theirs.path}:runtime")
        assert pack.newest(home.registry, home.keys) is None

    def test_where_there_is_none(self, home, tmp_path):
        with pytest.raises(NotHere, match="is no FOLDER:TAG"):
            run("container", str(tmp_path))
        with pytest.raises(MissingError, match="no tag 'latest'"):
            Layout(home.registry).put(b"")
            run("container", f"{home.registry}:latest")


class TestOnnx:
    @pytest.fixture
    def brought(self, tmp_path):
        return tiny_release(tmp_path / "brought")

    def usecase(self, home, brought):
        """A use case of the contract's name."""
        said = json.loads((brought / "contract.json").read_text())
        case = usecases.load(usecases.BUNDLED / "pump-station.yaml").model_copy(
            update={"name": said["usecase"]}
        )
        home.usecase.write_text(usecases.dumps(case))

    def test_it_is_a_release_as_any(self, home, brought):
        self.usecase(home, brought)
        found = run("onnx", str(brought / "model.onnx"), "--contract", str(brought / "contract.json"))
        again = run("onnx", str(brought / "model.onnx"), "--contract", str(brought / "contract.json"))
        assert found == again and found["release"] == 1
        store, trust = site(home, runs_images=False)
        path = store.path(store.fetch(Layout(home.registry), trust))
        assert (path / "model.onnx").read_bytes() == (brought / "model.onnx").read_bytes()
        assert {"usecase.yaml", "contract.json", "model_card.md"} <= set(os.listdir(path))

    def test_of_another_use_case_it_is_refused(self, home, brought):
        with pytest.raises(ValueError, match="this home is of 'pump-station'"):
            run("onnx", str(brought / "model.onnx"), "--contract", str(brought / "contract.json"))

    def test_one_that_does_not_run_is_refused(self, home, brought):
        (brought / "model.onnx").write_bytes(b"no model")
        with pytest.raises(NotHere, match="cannot be loaded"):
            run("onnx", str(brought / "model.onnx"), "--contract", str(brought / "contract.json"))
        assert pack.newest(home.registry, home.keys) is None


class TestRuntime:
    @pytest.fixture
    def model(self, make_model):
        Lineage("run-1", "v1", "sha256:0").write(folder := make_model("one"))
        (folder / "metrics.json").write_text("{}")
        return folder

    def test_what_is_released_from_then_on_lies_on_it(self, home, theirs, model):
        alone = pack.release(model, home.registry, home.keys, "pump-station")
        kept = run("runtime", f"{theirs.path}:runtime")["runtime"]
        on_it = pack.release(model, home.registry, home.keys, "pump-station")
        assert (alone.version, on_it.version) == (1, 2) and alone.model == on_it.model
        assert pack.release(model, home.registry, home.keys, "pump-station") == on_it
        manifest = json.loads(Layout(home.registry).get(on_it.image, max_bytes=1 << 20))
        assert manifest["annotations"][base.BASE_DIGEST] == kept
        assert [layer["digest"] for layer in manifest["layers"][:-1]] == [*map(digest_of, LAYERS)]

    def test_a_bundle_for_a_process_leaves_it_out(self, home, theirs, model, tmp_path):
        """Once the site said what it has no use for; the first one is for any site."""
        run("runtime", f"{theirs.path}:runtime")
        pack.release(model, home.registry, home.keys, "pump-station")
        store, trust = site(home, runs_images=False)
        first = pack.bundle(home.registry, home.keys, tmp_path / "first")
        bundle.import_bundle(first, store.layout, trust, runs_images=False)
        store.fetch(store.layout, trust)
        with pytest.raises(MissingError, match="leaves out what only containers need"):
            oci_archive(store.layout, store.releases()[0].image, PLACE, 1, tmp_path / "x.tar")
        layers = {digest_of(layer) for layer in LAYERS}
        assert not layers & store.layout.blobs() and layers <= store.inventory()
        (model / "model.onnx").write_text("another")
        pack.release(model, home.registry, home.keys, "pump-station")
        update = pack.bundle(home.registry, home.keys, tmp_path / "next", have=store.inventory())
        included = {blob["digest"] for blob in bundle.inspect(update)["blobs"] if blob["included"]}
        assert not layers & included
        bundle.import_bundle(update, store.layout, trust, runs_images=False)
        assert store.fetch(store.layout, trust).version == 2
        engine = SiteStore(tmp_path / "cluster")
        with pytest.raises(MissingError, match="leaves out blob"):
            bundle.import_bundle(update, engine.layout, Trust(trust.root, engine.layout))
        assert not engine.layout.tags()


BUILD = """
import os, sys, time
from pathlib import Path
os.umask(int(sys.argv[3], 8)); time.tzset()
from edge_ai_assets.delivery import base, image
from edge_ai_assets.delivery.layout import Layout
layout = Layout(Path(sys.argv[2]))
kept = base.keep(Layout(Path(sys.argv[4])), "runtime", layout)
print(image.build(Path(sys.argv[1]), layout, annotations={"a": "é"}, base=kept))
"""


def test_two_builds_are_one_digest_wherever_they_are_made(make_model, theirs, tmp_path):
    """In another folder, by another umask, time zone, language, seed of hashes and time of the files."""
    import shutil

    found = set()
    for number, (umask, zone, language) in enumerate(
        [("022", "UTC", "C.UTF-8"), ("077", "Asia/Tokyo", "tr_TR")]
    ):
        model = tmp_path / f"{number}" / "a model"
        shutil.copytree(make_model("one"), model)
        for path in model.iterdir():
            os.utime(path, (number * 10**9, number * 10**9))
            path.chmod(0o600 + number * 0o44)
        environment = {
            **os.environ,
            "TZ": zone,
            "LANG": language,
            "LC_ALL": language,
            "PYTHONHASHSEED": f"{number}",
        }
        arguments = [model, tmp_path / f"{number}" / "layout", umask, theirs.path]
        done = subprocess.run(
            [sys.executable, "-c", BUILD, *map(str, arguments)],
            capture_output=True,
            text=True,
            env={**environment, "PYTHONPATH": os.pathsep.join(sys.path), "PYTHONUTF8": "1"},
            check=True,
            timeout=60,
        )
        found.add(done.stdout)
    assert len(found) == 1
