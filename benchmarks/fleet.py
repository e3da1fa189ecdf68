"""A thousand sites in a folder, as `bench_sensors` looks at them: files only, no service runs.

A site whose scoring service lives is one whose lock is held and whose state says what it serves, so this
process holds the locks.
"""

from __future__ import annotations

import resource
import shutil
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

import blocks
import numpy as np
import yaml

from edge_ai_assets import usecase as usecases
from edge_ai_assets.delivery import image, pack, release, signing
from edge_ai_assets.delivery.layout import Layout
from edge_ai_assets.delivery.release import Release
from edge_ai_assets.home import Home
from edge_ai_assets.returns.outbox.outbox import Batch, Outbox
from edge_ai_assets.returns.outbox.schema import PackageRow
from edge_ai_assets.scoring import folder as files

EVERY = 20
"""Each kind of work waits at every 20th site, beginning with another one, so that no two meet."""


@contextmanager
def fleet(root: Path, names: Sequence[str]) -> Iterator[Home]:
    """A home with a use case, a release, and these sites: linked, an outbox each, running that release."""
    home = Home(root)
    root.mkdir(parents=True)
    bundled = usecases.load(usecases.BUNDLED / "pump-station.yaml").model_dump(mode="json")
    bundled["sites"] = [{"name": name, "ring": "broad"} for name in names]
    home.usecase.write_text(yaml.safe_dump(bundled, allow_unicode=True), "utf-8")
    newest = published(home)
    with Outbox(root / "outbox.db") as outbox:
        outbox.append([batch()])
        outbox.unfold(1)
        outbox.dispose("withheld", {"kind normal is not listed": [1]})
    _, limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
    with ExitStack() as locks:
        for name in names:
            site = home.site(name)
            site.readings.mkdir(parents=True)
            shutil.copyfile(root / "outbox.db", site.outbox)
            serving = files.Release(newest.image, newest.version, str(site.root))
            files.write_status(site.root, files.Status(name, 1, None, child_pid=1, current=serving))
            locks.enter_context(files.hold(site.root / files.LOCK, seconds=1))
        yield home


def let_wait(home: Home, names: Sequence[str]) -> None:
    """Work for every sensor but `sites_registered`, at every EVERYth site."""
    for name in names[0::EVERY]:
        (home.site(name).readings / "readings.csv").write_text("time,flow\n")
    for name in names[1::EVERY]:
        with Outbox(home.site(name).outbox) as outbox:
            outbox.append([batch()])
    for name in names[2::EVERY]:
        with Outbox(home.site(name).outbox) as outbox:
            package = PackageRow(1, f"{name}-00000001.zip", "0" * 64, "", 0, 0, 0, 1)
            outbox.seal(package, [], [], {}, {})
    for name in names[3::EVERY]:
        site = home.site(name)
        status = files.read_status(site.root)
        assert status and status.current
        older = replace(status.current, version=status.current.version - 1)
        files.write_status(site.root, replace(status, current=older))


def batch() -> Batch:
    return Batch(None, "r1", 1, list(blocks.of({}, {}, np.array([0.25]), {})))


def published(home: Home) -> Release:
    model = home.root / "model"
    model.mkdir()
    for name in image.FILES:
        (model / name).write_text(f"{name}\n")
    layout = Layout(home.registry)
    return release.publish(
        layout,
        image=image.build(model, layout, annotations={}),
        usecase="pump-station",
        run_id="run",
        data_version="data",
        metrics={},
        key=signing.load_private(signing.create(home.keys, pack.KEY)),
    )
