"""A supervised process on this machine, as a runtime. How it is supervised is `scoring.supervisor`'s."""

from __future__ import annotations

from pathlib import Path

from edge_ai_assets.delivery import durable
from edge_ai_assets.runtimes.interface import Release, Running
from edge_ai_assets.scoring import lease, supervisor


class ProcessRuntime:
    """The service of the site in this folder."""

    def __init__(self, folder: Path, site: str) -> None:
        self._folder, self._site = folder, site

    def deploy(self, release: Release, *, timeout: float = 30.0) -> Running:
        """See Runtime."""
        return _running(
            supervisor.deploy(
                self._folder,
                site=self._site,
                release_id=release.release_id,
                version=release.version,
                path=release.path,
                quota=release.quota,
                timeout=timeout,
            )
        )

    def status(self) -> Running | None:
        """See Runtime."""
        found = supervisor.status(self._folder)
        return None if found is None else _running(found)

    def trust(self, note: bytes) -> None:
        """See Runtime. The service looks for it beside its outbox."""
        path = self._folder / lease.FILE
        if not path.exists() or path.read_bytes() != note:
            with durable.locked(self._folder / ".lease.lock"), durable.replacing(path) as file:
                file.write(note)

    def stop(self) -> None:
        """See Runtime."""
        supervisor.stop(self._folder)


def _running(status: supervisor.Status) -> Running:
    assert status.current is not None  # neither `deploy` nor `status` gives one without
    return Running(status.current.release_id, status.current.version, status.url, status.failed)
