"""A run that waits for a job until somebody terminates it: `terminated_training.py ENDPOINT CA FOLDER`."""

from __future__ import annotations

import sys
from pathlib import Path

import dagster as dg

from edge_ai_assets.home import Home
from edge_ai_assets.resources.azure_ml.command_job import Target
from edge_ai_assets.resources.azure_ml.training import TrainingOnAzure
from edge_ai_assets.resources.azure_ml.workspace import Workspace
from edge_ai_assets.resources.calling.patience import Patience
from edge_ai_assets.resources.storage.account import Account
from edge_ai_assets_tests.contract import azure_ml

KEY = dg.AssetKey(["model", "candidate"])


class Blobs(dict[str, bytes]):
    """A container in memory."""

    container = "lake"
    put, has = dict.__setitem__, dict.__contains__


def main(endpoint: str, ca: str, folder: str) -> None:
    home = Home(Path(folder))
    (home.root / "case.yaml").write_text("name: tiny")
    place = (azure_ml.SUBSCRIPTION, azure_ml.GROUP, azure_ml.NAME)
    workspace = Workspace(*place, azure_ml.Bearer(), endpoint, Path(ca), Patience(60, 0.1, 0.2))
    account = Account("https://acct.example", azure_ml.Bearer())
    training = TrainingOnAzure(lambda: (workspace, account), Target("cpu", "lake"), home)
    training.__dict__["_blobs"] = Blobs({"training_set/5e7.parquet": b""})

    @dg.asset(key=KEY)
    def candidate(context):
        case, rows = home.root / "case.yaml", home.training_sets / "5e7.parquet"
        yield from training.train(context, case, rows, home.root / "made")

    done = dg.materialize([candidate], raise_on_error=False)
    sys.exit(0 if done.success else 3)


if __name__ == "__main__":
    main(*sys.argv[1:])
