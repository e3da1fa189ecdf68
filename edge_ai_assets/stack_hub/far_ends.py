"""What sites reach over the network, as the Dagster resource `far_ends`: storage and registry in
Azure, and their hub's storage.

What is not configured is None: then it is a folder of the home, or the embedded queue.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from edge_ai_assets.home import SiteHome
from edge_ai_assets.profiles import StackHubProfile
from edge_ai_assets.returns.road.link import Link
from edge_ai_assets.returns.road.pace import Pace
from edge_ai_assets.returns.road.roads import Leaving

if TYPE_CHECKING:
    from edge_ai_assets.delivery.registry import Registry
    from edge_ai_assets.resources.configured import Hub
    from edge_ai_assets.resources.uplink.blob_uplink import BlobUplink


@dataclass(frozen=True)
class FarEnds:
    """See the module.

    Args:
        profile: of the sites' side; all is embedded when absent.
    """

    profile: StackHubProfile = field(default_factory=StackHubProfile)

    def uplink(self, site: SiteHome, pace: Pace) -> SwitchedUplink | None:
        """The road to Azure's storage. SecretError when its secret cannot be fetched."""
        from edge_ai_assets.resources import configured

        road = configured.uplink(self.profile, site.name, pace)
        return SwitchedUplink(road, Link(site.root)) if road else None

    def hub(self) -> Hub | None:
        """The hub's queues and notes. SecretError when their secret cannot be fetched."""
        from edge_ai_assets.resources import configured

        return configured.hub(self.profile)

    def registry(self) -> Registry | None:
        """Where releases are pulled from. SecretError when its secret cannot be fetched."""
        from edge_ai_assets.resources import registries

        return registries.registry(self.profile.registry) if self.profile.registry else None


NOTHING_FAR = FarEnds()


class SwitchedUplink:
    """A real road that `edge-ai link down` closes like the embedded one: then nothing connects outward."""

    answers = True

    def __init__(self, road: BlobUplink, link: Link) -> None:
        self._road, self._link = road, link

    @property
    def site(self) -> str:
        return self._road.site

    @property
    def destination(self) -> str:
        return self._road.destination

    @property
    def together(self) -> int:
        return self._road.together

    def send(self, path: Path, name: str, digest: str, leaving: Leaving) -> int:
        def unless_cut(first: int, last: int) -> None:
            self._link.check()
            leaving(first, last)

        self._link.check()
        return self._road.send(path, name, digest, unless_cut)

    def digest_of(self, name: str) -> str | None:
        self._link.check()
        return self._road.digest_of(name)

    def probe(self) -> None:
        self._link.check()
        self._road.probe()

    def acknowledgement(self) -> bytes | None:
        self._link.check()
        return self._road.acknowledgement()
