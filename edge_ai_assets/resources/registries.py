"""From the section [registry] of the settings to a registry. What it is good for is `delivery.registry`'s."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edge_ai_assets import profiles
from edge_ai_assets.resources.identity import credentials
from edge_ai_assets.resources.identity.secret import reveal

if TYPE_CHECKING:
    from edge_ai_assets.delivery.registry import Registry
    from edge_ai_assets.delivery.sign_in import Credential


def registry(section: profiles.Registry) -> Registry:
    """The registry of a section. Nothing is asked of it yet.

    Raises:
        SecretError: its secret cannot be fetched.
    """
    from edge_ai_assets.delivery.distribution import Repository
    from edge_ai_assets.delivery.registry import Registry

    return Registry(Repository(section.repository, _credential(section), ca=section.ca))


def _credential(section: profiles.Registry) -> Credential:
    from edge_ai_assets.delivery.sign_in import Anonymous, Entra, Password

    if section.entra is not None:
        return Entra(credentials.entra(section.entra))
    if section.token is not None:
        assert section.user is not None
        return Password(section.user, reveal(section.token))
    return Anonymous()
