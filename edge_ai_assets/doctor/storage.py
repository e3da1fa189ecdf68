"""Checks of storage accounts: the very calls that are made of them, at the very place.

Writing is tried with a block that is never committed: it is no blob, nobody sees it, and storage forgets it
within a week.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from typing import Any
from urllib.parse import parse_qs

from edge_ai_assets.doctor import causes
from edge_ai_assets.doctor.causes import Why
from edge_ai_assets.doctor.finding import Cause, Finding
from edge_ai_assets.profiles import AzureProfile, StackHubProfile
from edge_ai_assets.resources import configured
from edge_ai_assets.resources.storage.account import Account, missing

NAME = ".doctor"
CONNECT_SECONDS, READ_SECONDS = 4.0, 6.0
PERMISSION = frozenset(
    {
        "AuthorizationPermissionMismatch",
        "AuthorizationResourceTypeMismatch",
        "AuthorizationServiceMismatch",
        "InsufficientAccountPermissions",
    }
)
Step = Callable[[], Any]


def uplink(profile: StackHubProfile) -> Finding:
    """That a site may create packages in the container, and read what is there of its own."""
    section = profile.uplink
    assert section is not None

    def steps(account: Account) -> Iterable[tuple[str, Step]]:
        yield from _blobs(account, section.container, writes=True)

    return _checked("stack_hub.uplink", section.endpoint, lambda: configured.uplink_account(profile), steps)


def queue(profile: StackHubProfile) -> Finding:
    """That the hub has the three queues and the container of notes, and that notes may be written."""
    section = profile.queue
    assert section is not None

    def steps(queues: Account, blobs: Account) -> Iterable[tuple[str, Step]]:
        for name in (configured.LETTERS, configured.RECEIPTS, configured.DEAD):
            yield f"queue {name}", partial(queues.queue(name).peek_messages, 1)
        yield from _blobs(blobs, section.notes, writes=True)

    return _checked("stack_hub.queue", section.queues, lambda: configured.hub_accounts(section), steps)


def storage(profile: AzureProfile) -> Finding:
    """That Azure's account has the containers, and lets us read and write what we do there."""
    section = profile.storage
    assert section is not None

    def steps(account: Account) -> Iterable[tuple[str, Step]]:
        for name in (section.lake, section.uplink, section.site):
            yield from _blobs(account, name, writes=True, lists=True)
        yield from _blobs(account, section.landing, writes=False, lists=True)

    return _checked("azure.storage", section.endpoint, lambda: configured.storage(profile), steps)


def _blobs(
    account: Account, container: str, *, writes: bool, lists: bool = False
) -> Iterable[tuple[str, Step]]:
    client = account.container(container)
    blob = client.get_blob_client(NAME)
    place = f"container {container}"
    if writes:
        yield f"{place}, writing", lambda: blob.stage_block("ZG9jdG9y", b"x")
    yield f"{place}, reading", lambda: _read(blob)
    if lists:
        yield f"{place}, listing", lambda: next(client.list_blobs(results_per_page=1).by_page(), None)


def _read(blob: Any) -> Mapping[str, str] | None:
    """The headers of the answer: that the blob is not there is one, too."""
    from azure.core.exceptions import ResourceNotFoundError

    try:
        blob.get_blob_properties()
    except ResourceNotFoundError as error:
        if not missing(error):
            raise
        return causes.headers_of(error)
    return None


def _checked(
    service: str, where: str, accounts: Callable[[], Any], steps: Callable[..., Iterable[tuple[str, Step]]]
) -> Finding:
    """Take the steps one by one; the first that fails is the finding, whatever a client raises: no error of
    one service may hide those of the others."""
    try:
        found = accounts()
    except Exception as error:
        return Finding(service, where, *causes.why(error))
    both = [_hasty(each) for each in (found if isinstance(found, tuple) else (found,))]
    done = 0
    for place, step in steps(*both):
        try:
            answered = step()
        except Exception as error:
            cause, detail = why(error, both[0])
            return Finding(service, f"{where} {place}", cause, detail)
        behind = causes.skew(answered) if isinstance(answered, Mapping) else None
        if behind is not None and abs(behind) > causes.SKEW_SECONDS:
            return Finding(service, where, Cause.CLOCK, causes.said_of(behind))
        done += 1
    return Finding(service, where, detail=f"answers, {done} calls")


def _hasty(account: Account) -> Account:
    return replace(account, connect_seconds=CONNECT_SECONDS, read_seconds=READ_SECONDS)


def why(error: Exception, account: Account) -> Why:
    """What an error of a storage client means."""
    status, code = getattr(error, "status_code", None), _code(error)
    headers = causes.headers_of(error)
    if status is None:
        return causes.why(error)
    if "x-ms-request-id" not in {name.lower() for name in headers} and not code:
        return Cause.OTHER, str(status)
    if status in (401, 403):
        return _refused(code, headers, account)
    if code == "InvalidHeaderValue" and _about_version(error):
        return Cause.VERSION, f"it was asked in {account.api_version or 'the newest'}"
    if status == 404:
        return Cause.MISSING, code
    cause, _ = causes.of_status(status, headers)
    return cause, f"{status} {code}"


def _refused(code: str, headers: Mapping[str, str], account: Account) -> Why:
    behind = causes.skew(headers)
    if behind is not None and abs(behind) > causes.SKEW_SECONDS:
        return Cause.CLOCK, causes.said_of(behind)
    if expiry := _expiry(account):
        now = datetime.now(UTC)
        if expiry <= now:
            return Cause.EXPIRED, f"since {expiry:%Y-%m-%d %H:%M} UTC"
    return (Cause.PERMISSION if code in PERMISSION else Cause.CREDENTIAL), code


def _expiry(account: Account) -> datetime | None:
    """When a shared access signature ends."""
    signature = getattr(account.credential, "signature", None)
    said = parse_qs(signature).get("se", [""])[0] if isinstance(signature, str) else ""
    try:
        found = datetime.fromisoformat(said)
    except ValueError:
        return None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def _about_version(error: Exception) -> bool:
    """Whether the header that is refused is the version: storage names it in the element HeaderName."""
    return "x-ms-version" in str(error) or "API version" in str(error)


def _code(error: Exception) -> str:
    code = getattr(error, "error_code", None)
    return str(getattr(code, "value", code) or "")
