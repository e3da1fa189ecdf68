"""What NVIDIA's client gets from a server, as JSON: run by test_oip_clients.py in an environment of its own.

Reads {"url", "model", "version", "inputs", "cases"} from its input.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

import numpy as np
import tritonclient.http as sync
import tritonclient.http.aio as aio
from tritonclient.utils import InferenceServerException, triton_to_np_dtype

ASKED = json.load(sys.stdin)
URL, MODEL, VERSION = ASKED["url"], ASKED["model"], ASKED["version"]


def inputs(lib: Any, binary: bool) -> list[Any]:
    result = []
    for name, (datatype, shape, values) in ASKED["inputs"].items():
        tensor = lib.InferInput(name, shape, datatype)
        array = np.array(values, triton_to_np_dtype(datatype)).reshape(shape)
        result.append(tensor.set_data_from_numpy(array, binary_data=binary))
    return result


def options(lib: Any, case: dict[str, Any]) -> dict[str, Any]:
    wanted = case["outputs"]
    return {
        "model_version": case["version"],
        "inputs": inputs(lib, case["binary"]),
        "outputs": wanted and [lib.InferRequestedOutput(name, binary_data=how) for name, how in wanted],
        "request_id": case["id"],
        "request_compression_algorithm": case["request"],
        "response_compression_algorithm": case["response"],
    }


def shown(result: Any) -> dict[str, Any]:
    head = result.get_response()
    outputs = {}
    for output in head["outputs"]:
        array = result.as_numpy(output["name"])
        values = [value.decode() if isinstance(value, bytes) else value for value in array.tolist()]
        outputs[output["name"]] = values
    return {
        "outputs": outputs,
        "head": {name: head.get(name) for name in ("id", "model_name", "model_version")},
    }


def refused(client: Any, **changes: Any) -> list[str]:
    arguments = {"model_name": MODEL, "inputs": inputs(sync, True), **changes}
    try:
        client.infer(**arguments)
    except InferenceServerException as error:
        return [error.status(), error.message()]
    return ["200", ""]


def run_sync() -> dict[str, Any]:
    client = sync.InferenceServerClient(URL)
    cases = {
        name: shown(client.infer(MODEL, **options(sync, case)))
        for name, case in ASKED["cases"].items()
        if not case["aio"]
    }
    many = [client.async_infer(MODEL, inputs(sync, True)) for _ in range(20)]
    raw = sync.InferInput("Temperature", [2], "FP32").set_data_from_numpy(np.zeros(2, np.float32))
    return {
        "cases": cases,
        "many": [shown(each.get_result())["outputs"]["id"][0] for each in many],
        "live": client.is_server_live(),
        "ready": client.is_server_ready(),
        "models": {
            f"{name}/{version}": client.is_model_ready(name, version)
            for name, version in ((MODEL, ""), (MODEL, VERSION), (MODEL, "99"), ("none", ""))
        },
        "server": client.get_server_metadata(),
        "model": client.get_model_metadata(MODEL),
        "refused": {
            "version": refused(client, model_version="99"),
            "model": refused(client, model_name="none"),
            "output": refused(client, outputs=[sync.InferRequestedOutput("label")]),
            "classes": refused(client, outputs=[sync.InferRequestedOutput("score", class_count=2)]),
            "missing": refused(client, inputs=inputs(sync, True)[:1]),
            "rows": refused(client, inputs=[*inputs(sync, True)[:1], raw]),
            "gzip": refused(client, inputs=[raw], response_compression_algorithm="gzip"),
        },
    }


async def run_aio() -> dict[str, Any]:
    async with aio.InferenceServerClient(URL) as client:
        return {
            "cases": {
                name: shown(await client.infer(MODEL, **options(aio, case)))
                for name, case in ASKED["cases"].items()
                if case["aio"]
            },
            "live": await client.is_server_live(),
            "ready": await client.is_server_ready(),
            "model_ready": await client.is_model_ready(MODEL, VERSION),
            "server": await client.get_server_metadata(),
            "model": await client.get_model_metadata(MODEL),
        }


json.dump({"sync": run_sync(), "aio": asyncio.run(run_aio())}, sys.stdout)
