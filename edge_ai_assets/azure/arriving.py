"""Azure's end of the links where that is a container, as the Dagster resource `arriving`.

What comes is put into the inbox's folder, `arrivals` goes on from there. Without a container the sites put
their packages there themselves, and nothing is done here.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from edge_ai_assets.home import Home
from edge_ai_assets.profiles import AzureProfile
from edge_ai_assets.resources.identity.secret import SecretError
from edge_ai_assets.returns.road.link import LinkDown
from edge_ai_assets.returns.road.roads import UplinkError


@dataclass(frozen=True)
class Brought:
    """What one call moved."""

    fetched: list[str] = field(default_factory=list)
    """`site/name` of packages."""
    left: list[tuple[str, str]] = field(default_factory=list)
    """Blobs that were left in the container, and why."""
    interrupted: str | None = None
    """Why it stopped early: storage was out of reach, or refused. The rest comes with the next call."""


@dataclass(frozen=True)
class Arriving:
    """See the module.

    Args:
        profile: of Azure's side.
    """

    home: Home
    profile: AzureProfile = field(default_factory=AzureProfile)

    def waiting(self) -> list[str]:
        """`site/name` of packages in the container that were not fetched; it is listed, no more.

        Raises:
            LinkDown, UplinkError, SecretError: storage is out of reach, refuses; its secret is not there.
        """
        if self.profile.storage is None:
            return []
        from edge_ai_assets.resources import configured
        from edge_ai_assets.resources.uplink import blob_arrivals

        account = configured.storage(self.profile)
        assert account is not None
        return blob_arrivals.waiting(account, self.profile.storage.uplink, self.home.uplink)

    def sync(self) -> Brought:
        """Fetch all that waits, and put up acknowledgements that changed.

        A storage that cannot be asked is no error: packages come by other roads too, and are not to wait.
        """
        if self.profile.storage is None:
            return Brought()
        from edge_ai_assets.resources import configured
        from edge_ai_assets.resources.uplink import blob_arrivals

        fetched: list[str] = []
        left: list[tuple[str, str]] = []
        while True:
            try:
                account = configured.storage(self.profile)
                assert account is not None
                one = blob_arrivals.sync(account, self.profile.storage.uplink, self.home.uplink)
            except (LinkDown, UplinkError, SecretError) as error:
                return Brought(fetched, left, str(error))
            fetched, left = fetched + one.fetched, one.left
            if not one.fetched:
                return Brought(fetched, left)
