"""Dagster Pipes over blobs of a known folder: context in, messages out. The other end is `ml.over_blobs`.

Known, so that a run that takes over from another one reads what the script has said since its start. Messages
are read when somebody asks, and not by a thread that gives up on them some seconds after the script's end.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import dagster as dg

from edge_ai_assets.resources.calling.patience import Refused
from edge_ai_assets.resources.storage.account import Account
from edge_ai_assets.resources.storage.patient_blobs import PatientBlobs

WAY = "way.json"
"""Of a session's folder: how the script reaches the account, see `way`."""
LAST = 20
"""Lines that are kept to be told when the script fails."""


def way(account: Account, container: str, identity: str | None, hours: float) -> dict[str, str]:
    """How a script reaches the account: as the identity it runs as; or with a signature for this container
    and so many hours, if we have no identity ourselves but the account's key, or a signature.

    Args:
        identity: client id of the managed identity; None for the machine's own.
    """
    from azure.core.credentials import AzureNamedKeyCredential, AzureSasCredential
    from azure.storage.blob import ContainerSasPermissions, generate_container_sas

    ours, signature = account.credential, ""
    if isinstance(ours, AzureSasCredential):
        signature = ours.signature
    elif isinstance(ours, AzureNamedKeyCredential):
        signature = generate_container_sas(
            ours.named_key.name,
            container,
            ours.named_key.key,
            permission=ContainerSasPermissions(read=True, create=True, write=True, list=True),
            expiry=datetime.now(UTC) + timedelta(hours=hours),
        )
    return {"endpoint": account.endpoint, "signature": signature, "identity": identity or ""}


class BlobContext(dg.PipesContextInjector):
    """Writes the context to `<folder>/context.json`, and how the account is reached to `<folder>/way.json`:
    there may be a signature in it, and environment variables are shown to whoever may look at a job.

    Args:
        blobs: of the container.
        folder: the session's.
        way: how the script reaches the account, see `way`.
    """

    def __init__(self, blobs: PatientBlobs, folder: str, way: dict[str, str]) -> None:
        self._blobs, self._folder, self._way = blobs, folder, way

    @contextmanager
    def inject_context(self, context_data: Any) -> Iterator[dict[str, Any]]:
        key = f"{self._folder}/context.json"
        self._blobs.put(key, json.dumps(context_data).encode())
        self._blobs.put(f"{self._folder}/{WAY}", json.dumps(self._way).encode())
        yield {"bucket": self._blobs.container, "key": key}

    def no_messages_debug_text(self) -> str:
        return f"The context is the blob {self._folder}/context.json."


class BlobMessages(dg.PipesMessageReader):
    """Reads messages from `<folder>/messages/1.json` and so on, each holding one JSON object a line.

    What the script reports is kept until `finish`, and forgotten when the script opens Pipes anew: a job
    whose machine was taken away says all of it again, about other files.

    Args:
        blobs: of the container.
        folder: the session's.
    """

    def __init__(self, blobs: PatientBlobs, folder: str) -> None:
        self._blobs, self._folder = blobs, f"{folder}/messages"
        self._next = 1
        self._kept: list[Any] = []
        self.last: deque[str] = deque(maxlen=LAST)
        """What was said last."""

    @contextmanager
    def read_messages(self, handler: dg.PipesMessageHandler) -> Iterator[dict[str, Any]]:
        self._handler = handler
        yield {
            "bucket": self._blobs.container,
            "key_prefix": self._folder,
            "include_stdio_in_messages": True,
        }

    def pull(self) -> None:
        """Read what has been said meanwhile.

        Raises:
            Refused: something there is no message.
        """
        while (said := self._blobs.get(name := f"{self._folder}/{self._next}.json")) is not None:
            self._next += 1
            for line in said.splitlines():
                try:
                    message = json.loads(line)
                    method = message["method"]
                    self._remember(method, message["params"] or {})
                except (ValueError, KeyError, TypeError, AttributeError) as error:
                    raise Refused(f"{name} is no message of Dagster Pipes: {error!r}") from error
                if method == "opened":
                    self._kept.clear()
                if method == "closed" or method.startswith("report_"):
                    self._kept.append(message)
                else:
                    self._handler.handle_message(message)

    def finish(self) -> bool:
        """Read the rest, and hand over what the script reported; whether it has said its last word."""
        self.pull()
        for message in self._kept:
            self._handler.handle_message(message)
        return bool(self._handler.received_closed_message)

    def no_messages_debug_text(self) -> str:
        return f"Messages are blobs below {self._folder}/."

    def _remember(self, method: str, params: dict[str, Any]) -> None:
        if method == "log":
            self.last.append(params["message"])
        elif method == "log_external_stream":
            self.last.extend(line for line in params["text"].splitlines() if line.strip())
        elif method == "closed" and (error := params.get("exception")):
            self.last.append(f"{error['name']}: {error['message']}".strip())
