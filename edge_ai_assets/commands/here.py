"""What a command finds in the home that it runs in. Nothing is made or changed here."""

from __future__ import annotations

from edge_ai_assets.home import Home, SiteHome
from edge_ai_assets.settings import Settings
from edge_ai_assets.usecase import UseCase


class NotHere(ValueError):
    """What was named is not in this home; wrong usage."""


def home_and_usecase() -> tuple[Home, UseCase]:
    """The home, and its use case.

    Raises:
        NotHere: there is no home.
        UseCaseError: its use case cannot be used.
    """
    settings = Settings.load()
    home = settings.folders()
    if not home.root.is_dir():
        raise NotHere(f"{home.root} does not exist: run `make demo` first, or set EDGE_AI_HOME")
    return home, settings.load_usecase()


def azure() -> tuple[Home, UseCase]:
    """The same, for what is done on Azure's side only; NotHere in a site's own home."""
    settings = Settings.load()
    home = settings.folders()
    if not home.root.is_dir():
        raise NotHere(f"{home.root} does not exist: set EDGE_AI_HOME to the home of Azure's side")
    if home.own_site:
        raise NotHere(
            f"{home.root} is the home of site {home.own_site!r}: set EDGE_AI_HOME to that of Azure's side"
        )
    return home, settings.load_usecase()


def site(name: str) -> SiteHome:
    """A site of the use case; NotHere when it has none of that name."""
    home, usecase = home_and_usecase()
    names = [each.name for each in usecase.sites]
    if name not in names:
        raise NotHere(f"site {name!r} is not in use case {usecase.name!r}: it has {', '.join(names)}")
    return home.site(name)


def sites(name: str | None) -> list[SiteHome]:
    """That site, or those of the use case whose disk is here."""
    if name is not None:
        return [site(name)]
    home, usecase = home_and_usecase()
    return [at for each in usecase.sites if (at := home.site(each.name)).root.is_dir()]
