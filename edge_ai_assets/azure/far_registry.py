"""The registry that releases are published to, beside the folder of the home, as the Dagster resource
`far_registry`. Where azure.toml names none, the folder is the registry, and nothing is done here."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from edge_ai_assets.home import Home
from edge_ai_assets.profiles import AzureProfile

if TYPE_CHECKING:
    from edge_ai_assets.delivery.push import Pushed


@dataclass(frozen=True)
class FarRegistry:
    """See the module.

    Args:
        profile: of Azure's side.
    """

    profile: AzureProfile = field(default_factory=AzureProfile)

    @property
    def repository(self) -> str | None:
        """Where sites pull from; None when that is the folder."""
        return self.profile.registry.repository if self.profile.registry else None

    def publish(self, home: Home) -> Pushed | None:
        """Push what the folder holds and the registry lacks; None when there is no other registry.

        Raises:
            DeliveryError: the registry is out of reach, refuses, or has other releases; see `push`.
            SecretError: its secret cannot be fetched.
        """
        if self.profile.registry is None:
            return None
        from edge_ai_assets.delivery.layout import Layout
        from edge_ai_assets.delivery.push import push
        from edge_ai_assets.resources.registries import registry

        return push(Layout(home.registry), registry(self.profile.registry))
