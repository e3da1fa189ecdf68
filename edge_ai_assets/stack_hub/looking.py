"""How a sensor looks over sites: which are known, in turn, and past one whose files cannot be read.

What it looks for, and what it asks for, is the sensors' matter.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import dagster as dg

from edge_ai_assets.partitions import SITES
from edge_ai_assets.usecase import UseCase

NAMED = 5
"""Most sites that a sentence names."""


class Looking:
    """One tick's look at many sites. What is odd at one is logged as an error, and the others are looked at.

    Args:
        log: the tick's.
    """

    def __init__(self, log: logging.Logger) -> None:
        self.failed: dict[str, str] = {}
        """Sites that could not be looked at, with what was met."""
        self._log = log

    @contextmanager
    def at(self, site: str) -> Iterator[None]:
        """The look at one site: no error leaves the block."""
        try:
            yield
        except Exception as error:  # whatever it is, it is that site's; `why` and the log tell it
            self.failed[site] = f"{type(error).__name__}: {error}"
            self._log.error("site %s cannot be looked at: %s", site, self.failed[site])

    def why(self, otherwise: str) -> str:
        """Why nothing was asked for, with the sites that could not be looked at."""
        if not self.failed:
            return otherwise
        some = [f"{site}: {met}" for site, met in list(self.failed.items())[:NAMED]]
        return f"{otherwise}; {len(self.failed)} sites cannot be looked at: {'; '.join(some)}"


def known_sites(instance: dg.DagsterInstance, usecase: UseCase) -> list[str]:
    """Sites that are registered and in the use case: one that was taken out of it is left alone."""
    named = {site.name for site in usecase.sites}
    return [name for name in instance.get_dynamic_partitions(str(SITES.name)) if name in named]


def next_in_turn(sites: Sequence[str], last: str | None, count: int) -> list[str]:
    """Up to `count` sites, those after `last` first, then from the start."""
    if last is None:
        return list(sites[:count])
    return ([site for site in sites if site > last] + [site for site in sites if site <= last])[:count]
