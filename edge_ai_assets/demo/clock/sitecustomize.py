"""The clock of a demo: with this folder on PYTHONPATH, every Python process begins so many days from now.

Python imports a module of this name at its start. Only what a demo starts has the folder on its path.
"""

import datetime
import os
import sys

if days := os.environ.get("EDGE_AI_DEMO_DAYS"):
    import time_machine

    start = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=float(days))
    time_machine.travel(start, tick=True).start()
    if any("dagster" in word for word in sys.orig_argv):
        # gRPC hands deadlines to a library below Python, whose clock is the machine's.
        import time
        from types import SimpleNamespace

        import grpc._channel
        import grpc._server

        real = SimpleNamespace(**{**vars(time), "time": time_machine.escape_hatch.time.time})
        grpc._channel.time = grpc._server.time = real
