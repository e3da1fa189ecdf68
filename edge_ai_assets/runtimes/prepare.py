"""Before Dagster's daemon starts as a service of the system: its instance, made or brought up to date.

`python -m edge_ai_assets.runtimes.prepare`, with EDGE_AI_HOME. By one process, as `local.set_up` explains.
"""

from __future__ import annotations

from edge_ai_assets import local
from edge_ai_assets.settings import Settings

if __name__ == "__main__":
    local.set_up(Settings.load().folders())
