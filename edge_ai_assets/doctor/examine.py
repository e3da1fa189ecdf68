"""Which checks there are for these settings, and all of them at once within a deadline."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Mapping
from functools import partial

from edge_ai_assets.doctor import here, services, storage
from edge_ai_assets.doctor.finding import Cause, Check, Finding
from edge_ai_assets.home import SiteHome
from edge_ai_assets.settings import Settings

DEADLINE_SECONDS = 15.0


def checks(settings: Settings) -> dict[str, Check]:
    """A check for this machine's parts and for each section of the settings, by name."""
    home, azure, hub = settings.folders(), settings.azure, settings.stack_hub
    found: dict[str, Check] = {
        "home": partial(here.home, home),
        "use case": partial(here.usecase, settings),
    }
    sites = _sites(settings)
    if sites:
        found["trust"] = partial(here.lease, sites)
    for site in sites:
        if (site.root / "runtime.toml").exists():
            found[f"runtime of {site.name}"] = partial(here.runtime, site)
    declared = next((path for path in (home.instance, home.dagster / "dagster.yaml") if path.exists()), None)
    if declared:
        try:
            if database := services.database(declared):
                found["dagster.storage"] = partial(services.postgres, declared, database)
        except ValueError as error:
            wrong = Finding("dagster.storage", str(declared), Cause.SETTINGS, str(error))
            found["dagster.storage"] = lambda: wrong
    if azure.storage:
        found["azure.storage"] = partial(storage.storage, azure)
    if azure.ingestion:
        found["azure.ingestion"] = partial(services.ingestion, azure.ingestion)
    if azure.training:
        found["azure.training"] = partial(services.training, azure.training)
    if azure.features and azure.features.endpoint:
        found["azure.features"] = partial(services.livy, azure.features)
    if azure.publishing:
        found["azure.publishing"] = partial(services.publishing, azure.publishing)
    for name, section in (("azure.registry", azure.registry), ("stack_hub.registry", hub.registry)):
        if section:
            found[name] = partial(services.registry, name, section)
    if hub.uplink:
        found["stack_hub.uplink"] = partial(storage.uplink, hub)
    if hub.queue:
        found["stack_hub.queue"] = partial(storage.queue, hub)
    return {name: _trusting(name, settings, check) for name, check in found.items()}


def examine(checks: Mapping[str, Check], seconds: float = DEADLINE_SECONDS) -> list[Finding]:
    """What each check found, in their order; those that had no answer by the deadline say so.

    Raises:
        Exception: what a check raised, which is a defect of it.
    """
    answers: queue.Queue[tuple[str, Finding | Exception]] = queue.Queue()

    def one(name: str, check: Check) -> None:
        try:
            answers.put((name, check()))
        except Exception as error:  # it is raised by whoever waits
            answers.put((name, error))

    for name, check in checks.items():
        # A resolver or a client that hangs must not keep the program from ending.
        threading.Thread(target=one, args=(name, check), name=name, daemon=True).start()
    end, found = time.monotonic() + seconds, dict[str, Finding]()
    while len(found) < len(checks):
        try:
            name, answer = answers.get(timeout=max(0.0, end - time.monotonic()))
        except queue.Empty:
            break
        if isinstance(answer, Exception):
            raise answer
        found[name] = answer
    late = f"nothing came in {seconds:g} s"
    return [found.get(name) or Finding(name, "", Cause.TIMEOUT, late) for name in checks]


def _trusting(name: str, settings: Settings, check: Check) -> Check:
    """A check, unless the certificates that its section names are none: clients say that in ways that are
    taken for something else."""
    profile, _, section = name.partition(".")
    ca = getattr(getattr(getattr(settings, profile, None), section, None), "ca", None)
    return partial(here.certificates, name, ca, check) if ca else check


def _sites(settings: Settings) -> list[SiteHome]:
    """The sites whose disk is here."""
    folder = settings.folders().root / "sites"
    return [SiteHome(path) for path in sorted(folder.iterdir()) if path.is_dir()] if folder.is_dir() else []
