"""The landing zone's far end where that is a container, as the Dagster resource `landing_zone`.

What was landed there is put into the home's landing zone, `readings.landing` goes on from there. Without a
container files are put into the home by whoever has them, and nothing is done here.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from edge_ai_assets.home import Home
from edge_ai_assets.profiles import AzureProfile
from edge_ai_assets.resources import configured
from edge_ai_assets.resources.ingestion.blob_landing import BlobLanding, Fetched


@dataclass(frozen=True)
class LandingZone:
    """See the module.

    Args:
        profile: of Azure's side.
    """

    home: Home
    profile: AzureProfile = field(default_factory=AzureProfile)

    @property
    def far(self) -> bool:
        """Whether there is a container."""
        return self.profile.storage is not None

    def waiting(self) -> list[tuple[str, str]]:
        """Name and etag of landed files that were not fetched; the container is listed, no more.

        Raises:
            LinkDown, LandingError, SecretError: storage is out of reach, refuses; its secret is not there.
        """
        return far.waiting() if (far := self._far()) else []

    def fetch(self) -> Fetched:
        """Bring what waits into the home.

        Raises:
            LandingError, SecretError: storage refuses; its secret is not there.
        """
        return far.fetch() if (far := self._far()) else Fetched()

    def _far(self) -> BlobLanding | None:
        section, account = self.profile.storage, configured.storage(self.profile)
        return BlobLanding(account, section.landing, self.home.landing) if section and account else None
