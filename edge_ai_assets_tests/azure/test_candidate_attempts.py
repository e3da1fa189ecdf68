"""A step that is done again within its run: what the first attempt has mirrored has one content for ever."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path
from typing import Any

import dagster as dg

from edge_ai_assets import keys, usecase
from edge_ai_assets.azure.assets import model
from edge_ai_assets.home import Home
from edge_ai_assets.ml import lineage
from edge_ai_assets.resources.mirror.home_mirror import HomeMirror

CASE = usecase.loads("""
name: tiny
time: {columns: [time]}
runs: {column: run}
features: [{name: Temperature, range: [-40, 150]}]
label: {column: fault, positive: [1]}
egress: {kinds: [anomaly]}
sites: [{name: bergen}]
""")


class Twice:
    """Training that gives another model each time, as it may on a newer training set, and whose first is not
    registered."""

    def __init__(self) -> None:
        self.folders: list[Path] = []

    def train(self, context: Any, usecase: Path, training_set: Path, out: Path) -> list[Any]:
        self.folders.append(out)
        shutil.rmtree(out, ignore_errors=True)  # as the training script does
        out.mkdir()
        card = f"attempt {len(self.folders)}".encode()
        (out / "model_card.md").write_bytes(card)
        files = {"model_card.md": hashlib.sha256(card).hexdigest()}
        return [
            dg.MaterializeResult(asset_key=keys.CANDIDATE, metadata={"files": dg.MetadataValue.json(files)}),
            dg.AssetCheckResult(asset_key=keys.CANDIDATE, check_name="parity", passed=True),
        ]

    def register(self, *given: Any) -> dict[str, Any]:
        if len(self.folders) == 1:
            raise dg.RetryRequested(max_retries=1)
        return {}


def test_each_attempt_has_a_folder_of_its_own(tmp_path, monkeypatch):
    home, there, training = Home(tmp_path), dict[str, bytes](), Twice()
    home.training_sets.mkdir(parents=True)
    monkeypatch.setattr("edge_ai_assets.ml.training_set.newest", lambda _: Found())

    class Mirror(HomeMirror):
        """Creates once, as a container does."""

        def push(self, *paths: Path) -> dict[str, Any]:
            for path in (file for folder in paths for file in folder.resolve().iterdir()):
                name = str(path.relative_to(home.root))
                assert there.setdefault(name, path.read_bytes()) == path.read_bytes(), "another writer"
            return {}

    resources = {"training": training, "home": home, "usecase": CASE, "mirror": Mirror(home)}
    done = dg.materialize([model.candidate], resources=resources)
    assert done.success and len(set(training.folders)) == 2
    assert home.candidate.resolve() == training.folders[1].resolve()
    assert (home.candidate / "model_card.md").read_bytes() == b"attempt 2"
    assert lineage.read(home.candidate).training_run == done.run_id
    assert training.folders[0].name == done.run_id  # where it is looked for


class Found:
    version, path = "newest", Path("newest.parquet")
