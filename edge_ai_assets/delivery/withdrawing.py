"""Releases that were taken back: saying so in the signed list, and which release is chosen then.

A mark on the target in the TUF metadata, so it is signed by as many keys as a release is, never forgotten
(versions only rise), and on every road that a release has. What a site does that runs one is
`stack_hub.withdrawn`'s.
"""

from __future__ import annotations

from edge_ai_assets.delivery import metadata
from edge_ai_assets.delivery import release as releases
from edge_ai_assets.delivery.authority import Authority
from edge_ai_assets.delivery.errors import WithdrawnError
from edge_ai_assets.delivery.layout import Layout
from edge_ai_assets.delivery.listing import Listed, Withdrawal, path_of
from edge_ai_assets.delivery.release import Release, Statement
from edge_ai_assets.delivery.source import Source
from edge_ai_assets.delivery.trust import Trust, Trusted, withdrawal


def withdraw(layout: Layout, version: int, authority: Authority, said: Withdrawal) -> Withdrawal:
    """Take back a release in `layout`: no site that hears of it installs it any more. For good.

    `latest` moves to the newest of the others; where there is none, it stays. Again changes nothing.

    Returns:
        What holds: what was said first.

    Raises:
        MissingError: there is no such release.
        UntrustedError: it is not listed.
        KeyFileError: too few private keys of the role `targets` are here.
    """
    with layout.editing() as tags:
        held = Trust(authority.root, layout).held()
        release = releases.get(layout, version, held)
        if before := withdrawal(held, release.usecase, version):
            return before
        path = path_of(release.usecase, version)
        tags[metadata.TAG] = authority.withdrawn(layout, tags, path, said)
        marked = Listed(held.targets, held.online, {**held.withdrawn, path: said})
        releases.point_latest(tags, release.usecase, marked)
    return said


def require(release: Release, trusted: Trusted) -> None:
    """WithdrawnError for a release that was withdrawn."""
    if said := withdrawal(trusted, release.usecase, release.version):
        raise WithdrawnError(f"release {release.version} refused: it was {said}")


def instead(source: Source, found: Statement, trusted: Trusted) -> Statement:
    """What was found as the newest release; if it was withdrawn, the newest of those in `source` that were
    not, if there is one. For the tag may be older than the list, and nobody signed it. Errors of
    `release.read`.
    """
    usecase = found.release.usecase
    if isinstance(trusted, Listed) and withdrawal(trusted, usecase, found.release.version):
        for version in reversed(releases.versions(source.names())):
            path = path_of(usecase, version)
            if path in trusted.targets and path not in trusted.withdrawn:
                return releases.find(source, version, trusted)
    return found


def floor(usecase: str, version: int, trusted: Trusted) -> int:
    """The oldest version that may follow `version`: itself, or if it was withdrawn, the newest before it that
    was not. So a site goes back past what was withdrawn, as the signed list says, and no further."""
    while version > 1 and withdrawal(trusted, usecase, version):
        version -= 1
    return version
