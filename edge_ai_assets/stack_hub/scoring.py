"""What `site/scores` does at one site: the waiting files through the scoring service."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, replace

from edge_ai_assets import usecase as usecases
from edge_ai_assets.delivery.store import SiteStore
from edge_ai_assets.home import SiteHome
from edge_ai_assets.returns.outbox.outbox import Outbox
from edge_ai_assets.runtimes.choice import runtime
from edge_ai_assets.runtimes.interface import Running
from edge_ai_assets.scoring import batch
from edge_ai_assets.scoring.client import Client
from edge_ai_assets.usecase import UseCase


class NotServing(RuntimeError):
    """No scoring service answers at the site."""


@dataclass(frozen=True)
class Scored:
    """What was scored in one pass."""

    scored: int = 0
    rejected: int = 0
    baseline: int = 0
    anomalies: int = 0
    outside: int = 0
    files: int = 0
    unreadable: int = 0
    seconds: float = 0.0
    release: int = 0
    outbox_rows: int = 0


def score_waiting(site: SiteHome, log: logging.Logger) -> Scored:
    """Score every file of readings that waits, one that was interrupted first; one that cannot be read, or
    that the service refuses, is set aside in `readings/unreadable/` with the reason beside it.

    Raises:
        NotServing: the site has no service yet, or it is down.
        ServiceError: the service went away.
    """
    service = running(site)
    usecase = deployed_usecase(site)
    total, start = Scored(release=service.version or 0), time.monotonic()
    with Client(service.url or "") as client:
        for path in dict.fromkeys(filter(None, [batch.interrupted(site), *batch.waiting(site)])):
            try:
                one = batch.score_file(path, usecase=usecase, site=site, client=client)
            except Exception as error:
                if not batch.refused(error):
                    raise
                # Only where the reason is: it may quote readings, and the log goes further than they may.
                log.error("site %s: %s is set aside: %s", site.name, path.name, batch.set_aside(path, error))
                total = replace(total, unreadable=total.unreadable + 1)
                continue
            total = replace(
                total,
                scored=total.scored + one.scored,
                rejected=total.rejected + one.rejected,
                baseline=total.baseline + one.baseline,
                anomalies=total.anomalies + one.anomalies,
                outside=total.outside + one.outside,
                files=total.files + 1,
            )
    with Outbox(site.outbox) as outbox:
        rows = outbox.counts().scored
    return replace(total, seconds=time.monotonic() - start, outbox_rows=rows)


def running(site: SiteHome) -> Running:
    """The site's scoring service; NotServing when there is none."""
    service = runtime(site.root, site.name).status()
    if service is None or service.url is None:
        raise NotServing(f"nothing serves scores at site {site.name}: materialize site/deployment for it")
    return service


def deployed_usecase(site: SiteHome) -> UseCase:
    """The use case that came with the running release: a site obeys what was signed, not what lies about."""
    folder = site.root / "current"
    if not folder.exists():  # nothing is linked here by a cluster
        store, served = SiteStore(site.root), running(site).release_id
        folder = next(store.path(release) for release in store.releases() if release.image == served)
    return usecases.load(folder / "usecase.yaml")
