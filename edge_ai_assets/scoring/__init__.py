"""The on-site scoring service: scores over HTTP, each on disk before it is answered; keeps itself running.

The service needs the standard library, numpy, onnxruntime, msgspec, orjson, httptools and uvloop only;
nothing here knows of Dagster or Azure.
"""
