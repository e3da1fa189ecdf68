"""Where everything local is: the folders below `EDGE_AI_HOME`, by name. No logic beyond paths and links.

Deleting the home is a clean start; two homes never meet.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class SiteHome:
    """The folders of one site; on a real site, all there is."""

    root: Path

    @property
    def name(self) -> str:
        return self.root.name

    @property
    def home(self) -> Home:
        """The home it lies in."""
        return Home(self.root.parents[1])

    @property
    def trial(self) -> Path:
        """Note of since when the release that serves does, and how the one before did."""
        return self.root / "trial.json"

    @property
    def readings(self) -> Path:
        """Files of readings that wait to be scored."""
        return self.root / "readings"

    @property
    def scored(self) -> Path:
        """Files whose readings were scored."""
        return self.root / "scored"

    @property
    def rejected(self) -> Path:
        """Readings that break the contract, with the reason, as Parquet."""
        return self.root / "rejected"

    @property
    def lookback(self) -> Path:
        """Readings that later feature windows still need."""
        return self.root / "lookback.parquet"

    @property
    def scoring(self) -> Path:
        """Note of the file of readings that is being scored."""
        return self.root / "scoring.json"

    @property
    def outbox(self) -> Path:
        return self.root / "outbox.db"

    @property
    def spool(self) -> Path:
        """Sealed return packages."""
        return self.root / "spool"

    @property
    def ledger(self) -> Path:
        return self.root / "ledger.jsonl"

    @property
    def media(self) -> Path:
        """Offline bundles that were carried here."""
        return self.root / "media"

    @property
    def taken(self) -> Path:
        """Note of the bundles in `media` that were looked at."""
        return self.root / "taken.txt"

    @property
    def outgoing(self) -> Path:
        """Return packages to be carried to Azure: a folder, or a medium mounted here."""
        return self.root / "outgoing"

    @property
    def keys(self) -> Path:
        """The site's own keys, and the public keys it trusts."""
        return self.root / "keys"


@dataclass(frozen=True)
class Home:
    """See the module."""

    root: Path

    @property
    def usecase(self) -> Path:
        """The use case this home was set up with."""
        return self.root / "usecase.yaml"

    @property
    def joined(self) -> Path:
        """Holds the name of the site whose home this is, and nobody else's; absent where Azure's side is."""
        return self.root / "joined.txt"

    @property
    def own_site(self) -> str | None:
        """The site whose home this is; None when Azure's side is here."""
        return self.joined.read_text("utf-8").strip() if self.joined.exists() else None

    @property
    def dagster(self) -> Path:
        """Dagster's instance."""
        return self.root / "dagster"

    @property
    def instance(self) -> Path:
        """What Dagster's instance is to be, such as deploy/azure/dagster.yaml; absent, it has SQLite."""
        return self.root / "dagster.yaml"

    @property
    def rollout(self) -> Path:
        """What an operator, or evidence, decided about releases on their way to the sites."""
        return self.root / "rollout.json"

    @property
    def landing(self) -> Path:
        """Files as Data Factory lands them."""
        return self.root / "landing"

    @property
    def lake(self) -> Path:
        return self.root / "lake"

    @property
    def raw_telemetry(self) -> Path:
        return self.lake / "raw_telemetry"

    @property
    def quarantine(self) -> Path:
        """Landed readings that break the contract, with the reason."""
        return self.lake / "quarantine"

    @property
    def training_sets(self) -> Path:
        return self.lake / "training_set"

    @property
    def tables(self) -> Path:
        """The global Delta tables."""
        return self.lake / "global"

    @property
    def report(self) -> Path:
        """The page for everyone, and what it loads, if anything."""
        return self.lake / "report"

    @property
    def models(self) -> Path:
        return self.root / "models"

    @property
    def candidates(self) -> Path:
        """A folder a training run, named by it."""
        return self.models / "candidates"

    def trained(self, run: str) -> Path:
        """The candidate of a training run; of its last attempt, if its step was done again."""
        again = (path for path in self.candidates.glob(f"{run}-[0-9]*") if path.is_dir())
        return max(again, key=lambda path: int(path.name.rpartition("-")[2]), default=self.candidates / run)

    @property
    def candidate(self) -> Path:
        """Link to the newest candidate's folder."""
        return self.models / "candidate"

    @property
    def champion(self) -> Path:
        """Link to the champion's folder."""
        return self.models / "champion"

    @property
    def registry(self) -> Path:
        return self.root / "registry"

    @property
    def media(self) -> Path:
        """Offline bundles, to be carried."""
        return self.root / "media"

    @property
    def uplink(self) -> Path:
        """Azure's end of the links: a folder a site."""
        return self.root / "uplink"

    @property
    def refused(self) -> Path:
        """Return packages that did not check out."""
        return self.root / "refused"

    @property
    def keys(self) -> Path:
        """Azure's signing key and the public keys of the sites."""
        return self.root / "keys"

    def site(self, name: str) -> SiteHome:
        return SiteHome(self.root / "sites" / name)


def point(link: Path, target: Path) -> None:
    """Make `link` a symbolic link to `target`, atomically, whatever it was before."""
    link.parent.mkdir(parents=True, exist_ok=True)
    fresh = link.with_name(f".{link.name}.{os.getpid()}")
    fresh.unlink(missing_ok=True)
    fresh.symlink_to(os.path.relpath(target, link.parent))
    os.replace(fresh, link)
