"""Azure Storage queues, those of an Azure Stack Hub included, as `returns.hub.queue.Queue`."""

from __future__ import annotations

import base64
import binascii
from typing import TYPE_CHECKING

from edge_ai_assets.resources.storage.account import Account
from edge_ai_assets.returns.hub.queue import Message, QueueError, check_size

if TYPE_CHECKING:
    from azure.storage.queue import QueueMessage

FOR_EVER = -1
"""A queue forgets messages after 7 days by default; a site may wait longer for its link."""
GONE = frozenset({"MessageNotFound", "PopReceiptMismatch"})


class StorageQueue:
    """One queue of an account.

    Bodies are base64, as the host of Azure's functions wants them. One that is not, which somebody else put
    there, is taken as the text it is.

    Args:
        account: with the endpoint of its queues; of a hub with `api_version=HUB_API_VERSION`.
        name: of the queue; it must exist, see `create`.
    """

    def __init__(self, account: Account, name: str) -> None:
        self.name = name
        self._account, self._client = account, account.queue(name)

    def create(self) -> None:
        """Make the queue; nothing when it is there."""
        from azure.core.exceptions import ResourceExistsError

        with self._account.talking(f"creating the queue {self.name}", QueueError):
            try:
                self._client.create_queue()
            except ResourceExistsError:
                return

    def send(self, body: bytes) -> None:
        check_size(body)
        with self._account.talking(f"sending to the queue {self.name}", QueueError):
            self._client.send_message(base64.b64encode(body).decode(), time_to_live=FOR_EVER)

    def receive(self, limit: int, hidden_seconds: int) -> list[Message]:
        with self._account.talking(f"receiving from the queue {self.name}", QueueError):
            found = self._client.receive_messages(max_messages=limit, visibility_timeout=hidden_seconds)
            return [_message(each) for each in found]

    def delete(self, message: Message) -> bool:
        from azure.core.exceptions import HttpResponseError

        with self._account.talking(f"deleting from the queue {self.name}", QueueError):
            try:
                self._client.delete_message(message.id, message.receipt)
            except HttpResponseError as error:
                if getattr(error, "error_code", None) in GONE:
                    return False
                raise
        return True

    def peek(self, limit: int) -> list[Message]:
        with self._account.talking(f"looking at the queue {self.name}", QueueError):
            return [_message(each) for each in self._client.peek_messages(max_messages=limit)]

    def count(self) -> int:
        with self._account.talking(f"counting the queue {self.name}", QueueError):
            return int(self._client.get_queue_properties().approximate_message_count or 0)


def _message(found: QueueMessage) -> Message:
    text = str(found.content)
    try:
        body = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        body = text.encode()
    sent = int(found.inserted_on.timestamp() * 1_000_000) if found.inserted_on else 0
    return Message(str(found.id), body, int(found.dequeue_count or 0), sent, found.pop_receipt or "")
