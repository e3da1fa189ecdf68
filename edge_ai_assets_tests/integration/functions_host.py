"""A contract stub of the host of Azure's functions: its queue loop, as host.json says, around the real worker
library's decorators and converters. The host itself cannot be had outside Azure and its images.

Run as a program it waits for lines on its input; for each it forks a host that works until it is killed, and
prints its process id, then the signal that ended it.
"""

# ruff: noqa: TID253 (as in the function itself)
from __future__ import annotations

import importlib.util
import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import azure.functions as func
from azure.core.credentials import AzureNamedKeyCredential
from azure.functions.meta import Datum

from edge_ai_assets.resources.storage.account import HUB_API_VERSION, Account
from edge_ai_assets.resources.storage.queue import StorageQueue
from edge_ai_assets.returns.hub.queue import Message

FOLDER = Path(__file__).resolve().parents[2] / "deploy" / "functions"


class Out:
    """What the worker hands to a function for an output binding."""

    def __init__(self) -> None:
        self.value: Any = None

    def set(self, value: Any) -> None:
        self.value = value

    def get(self) -> Any:
        return self.value


class Host:
    """Runs the one function of an app folder.

    Args:
        hidden_seconds: how long a message is hidden; the real host hides it for longer and renews that.
    """

    def __init__(self, folder: Path = FOLDER, hidden_seconds: int = 1) -> None:
        spec = importlib.util.spec_from_file_location("function_app", folder / "function_app.py")
        assert spec and spec.loader
        self.module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(self.module)
        self.hidden_seconds = hidden_seconds
        self.settings = json.loads((folder / "host.json").read_text())["extensions"]["queues"]
        assert self.settings["messageEncoding"] == "base64" and self.settings["batchSize"] == 1
        (found,) = self.module.app.get_functions()
        self.call = found.get_user_function()
        bindings = json.loads(found.get_function_json())["bindings"]
        self.trigger = next(each for each in bindings if each["type"] == "queueTrigger")
        self.outputs = {each["name"]: each["queueName"] for each in bindings if each["direction"] == "OUT"}
        assert {each["connection"] for each in bindings} == {"HUB_STORAGE"}
        self.errors: list[str] = []

    def queue(self, name: str) -> StorageQueue:
        credential = AzureNamedKeyCredential(os.environ["HUB_ACCOUNT"], os.environ["HUB_KEY"])
        return StorageQueue(Account(os.environ["HUB_QUEUES"], credential, HUB_API_VERSION), name)

    def turn(self) -> bool:
        """Take one message; False when none is to be seen."""
        queue = self.queue(self.trigger["queueName"])
        if not (found := queue.receive(self.settings["batchSize"], self.hidden_seconds)):
            return False
        message = found[0]
        try:
            outputs = self._invoke(message)
        except Exception as error:
            self.errors.append(f"{type(error).__name__}: {error}")
            if message.tries >= self.settings["maxDequeueCount"]:
                self.queue(f"{queue.name}-poison").send(message.body)
                queue.delete(message)
            return True
        for name, body in outputs.items():
            self.queue(self.outputs[name]).send(body)
        queue.delete(message)
        return True

    def _invoke(self, message: Message) -> dict[str, bytes]:
        told = {"Id": Datum(message.id, "string"), "DequeueCount": Datum(str(message.tries), "string")}
        decode = func.get_binding_registry().get("queueTrigger").decode
        argument = decode(Datum(message.body, "bytes"), trigger_metadata=told)
        outs = {name: Out() for name in self.outputs}
        self.call(**{self.trigger["name"]: argument, **outs})
        encode = func.get_binding_registry().get("queue").encode
        return {
            name: encode(out.value, expected_type=bytes).value
            for name, out in outs.items()
            if out.value is not None
        }


def main() -> None:
    host = Host()
    for _ in sys.stdin:
        child = os.fork()
        if not child:
            while True:
                if not host.turn():
                    time.sleep(0.02)
        print(child, flush=True)
        _, status = os.waitpid(child, 0)
        assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL, f"a host ended with {status}"
        print(os.WTERMSIG(status), flush=True)


if __name__ == "__main__":
    main()
