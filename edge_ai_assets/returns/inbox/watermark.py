"""How complete a site is on Azure, in numbers and in a sentence: "complete through 8,812; 14 days stale; 2
gaps".

Pure: where the numbers come from is `heads`' and `azure.arrivals`' matter, what follows from them the
assets'.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from edge_ai_assets.returns.inbox.heads import Head

DAY = 24 * 3600 * 1_000_000
"""µs."""
SKEW = 5 * 60 * 1_000_000
"""A site's clock that is ahead by less is not worth a word, µs."""

Gap = tuple[int, int]
"""First and last number of packages that are missing while a later one is there."""


class Watermark(msgspec.Struct, frozen=True):
    """What of a site came, and what is known not to have come."""

    site: str
    head: Head
    """The last package of the chain without gaps."""
    gaps: tuple[Gap, ...]
    refused: tuple[int, ...]
    """Packages that were refused and of which no good copy came since."""
    silent: float | None
    """Days since something came, or since the site was registered if nothing did, by our clock; None when it
    was not registered either."""
    stale: bool
    """Silent for longer than it may be."""
    ahead: float
    """Days that the site's clock was ahead of ours when its last package came: at least that much. 0 when
    nothing shows it, as with a clock that is behind: a package may have been long under way."""

    @property
    def whole(self) -> bool:
        """Nothing is known to be missing."""
        return not (self.gaps or self.refused or self.stale)

    @property
    def sentence(self) -> str:
        """All of it, for people."""
        said = [self._through()]
        if self.stale and self.silent is not None:
            said.append(f"{self.silent:,.0f} days stale")
        if self.gaps:
            missing = ", ".join(
                f"{first:,}" if first == last else f"{first:,} to {last:,}" for first, last in self.gaps
            )
            said.append(f"{len(self.gaps)} gap{'s' * (len(self.gaps) > 1)} (package {missing})")
        if self.refused:
            said.append(f"package {', '.join(f'{number:,}' for number in self.refused)} refused")
        if self.head.waiting:
            said.append(f"{self.head.waiting:,} scores still at the site")
        if self.ahead:
            said.append(f"its clock is {_duration(self.ahead)} ahead")
        return "; ".join(said)

    def _through(self) -> str:
        if not self.head.number:
            return "nothing came yet"
        if self.head.complete is None:
            return f"complete through package {self.head.number:,}"
        return f"complete through {self.head.complete:,}"


def mark(
    site: str,
    head: Head,
    *,
    arrived: Iterable[int] = (),
    refused: Iterable[int] = (),
    registered_at: int | None = None,
    stale_days: float,
    now: int,
) -> Watermark:
    """The watermark of a site.

    Args:
        site: its name.
        head: where its chain stands; `Head()` before the first package.
        arrived: numbers of packages that are there, received ones or not.
        refused: numbers of packages in quarantine.
        registered_at: when the site's key became known, by our clock, µs since 1970.
        stale_days: a site that is silent for longer is stale.
        now: µs since 1970, UTC, by our clock. The site's clock is never used to tell how old something is.
    """
    heard = head.received_at if head.number else registered_at
    silent = None if heard is None else max(0, now - heard) / DAY
    ahead = head.created_at - head.received_at
    return Watermark(
        site=site,
        head=head,
        gaps=gaps(head.number, arrived),
        refused=tuple(sorted({number for number in refused if number > head.number})),
        silent=silent,
        stale=silent is not None and silent > stale_days,
        ahead=ahead / DAY if head.number and ahead > SKEW else 0.0,
    )


def gaps(last: int, arrived: Iterable[int]) -> tuple[Gap, ...]:
    """The ranges of numbers above `last` that are missing among `arrived`, up to the highest of these.

    However far numbers are apart, a range is two of them.
    """
    found = []
    for number in sorted({number for number in arrived if number > last}):
        if number > last + 1:
            found.append((last + 1, number - 1))
        last = number
    return tuple(found)


def _duration(days: float) -> str:
    return f"{days:,.1f} days" if days >= 1 else f"{days * 24 * 60:,.0f} minutes"
