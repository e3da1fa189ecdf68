"""The function of the connected form: a letter on the hub's queue becomes a return package in Azure.

Only the wiring is here: settings to services, bindings to `returns.hub.handling`. What is done, and why it is
safe to be killed, stands in `returns.hub.forwarding`. Settings are described in README.md.
"""

# ruff: noqa: TID253 (the worker has these packages, nothing else loads this file)
import base64
import os
from functools import cache

import azure.functions as func
from azure.core.credentials import AzureNamedKeyCredential, AzureSasCredential
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from edge_ai_assets.resources.storage.account import HUB_API_VERSION, Account
from edge_ai_assets.resources.storage.blob_notes import BlobNotes
from edge_ai_assets.resources.uplink.blob_uplink import BlobUplink
from edge_ai_assets.returns.hub import rulebook
from edge_ai_assets.returns.hub.forwarding import Forwarder
from edge_ai_assets.returns.hub.handling import handle
from edge_ai_assets.returns.hub.letters import Letter, Receipt
from edge_ai_assets.returns.road.pace import Pace

app = func.FunctionApp()


@app.queue_trigger(arg_name="message", queue_name="insights", connection="HUB_STORAGE")
@app.queue_output(arg_name="receipt", queue_name="receipts", connection="HUB_STORAGE")
@app.queue_output(arg_name="dead", queue_name="insights-poison", connection="HUB_STORAGE")
@app.queue_output(arg_name="again", queue_name="insights", connection="HUB_STORAGE")
def forward_insights(
    message: func.QueueMessage, receipt: func.Out[bytes], dead: func.Out[bytes], again: func.Out[bytes]
) -> None:
    """Forward what complies. An error leaves the message on the queue; after the last try it has a reason."""
    outcome = handle(message.get_body(), message.dequeue_count or 1, forward)
    for output, body in ((receipt, outcome.receipt), (dead, outcome.dead), (again, outcome.again)):
        if body is not None:
            output.set(body)


def forward(letter: Letter) -> Receipt:
    """Under the rules as they stand now: the site publishes them anew with each release."""
    rules = rulebook.read(notes(), os.environ["EDGE_AI_SITE"], signing_key())
    secret = base64.b64decode(os.environ["EDGE_AI_PSEUDONYM_KEY"])
    return Forwarder(uplink(rules), notes(), rules, secret, signing_key()).forward(letter)


@cache
def notes() -> BlobNotes:
    account, key = os.environ["HUB_ACCOUNT"], os.environ["HUB_KEY"]
    credential = AzureNamedKeyCredential(account, key)
    return BlobNotes(Account(os.environ["HUB_BLOBS"], credential, HUB_API_VERSION), "egress")


def uplink(rules: rulebook.Rulebook) -> BlobUplink:
    """The signature of the cloud's container needs the rights read, create and write, and no other."""
    account = Account(os.environ["CLOUD_BLOBS"], AzureSasCredential(os.environ["CLOUD_SAS"]))
    pace = Pace.of(rules.usecase.returns.kilobytes_per_second)
    return BlobUplink(account, os.environ["CLOUD_CONTAINER"], os.environ["EDGE_AI_SITE"], pace)


@cache
def signing_key() -> Ed25519PrivateKey:
    key = load_pem_private_key(os.environ["EDGE_AI_SIGNING_KEY"].encode(), password=None)
    if not isinstance(key, Ed25519PrivateKey):
        raise TypeError("EDGE_AI_SIGNING_KEY is not an Ed25519 key: take the site's own, keys/site.pem")
    return key
