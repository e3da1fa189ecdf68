from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from edge_ai_assets import usecase
from edge_ai_assets.usecase import UseCase

# Test files are imported by path, without packages; this makes the module that only writes files importable.
_spec = importlib.util.spec_from_file_location("lookalikes", Path(__file__).with_name("lookalikes.py"))
assert _spec and _spec.loader
sys.modules["lookalikes"] = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(sys.modules["lookalikes"])

BASE = """
name: mill
time: {columns: [time]}
site: {column: site}
runs: {column: run}
features:
  - {name: "T [°C]", unit: °C, range: [-50, 200]}
  - {name: mode, kind: category, categories: [eco, full]}
label: {column: fault, positive: [1]}
sites:
  - {name: north, value: N}
  - {name: south}
"""
HEADER = "site,run,time,T [°C],mode,fault"


def data_folder() -> Path:
    default = Path(__file__).resolve().parents[2].parent / "shared" / "data"
    return Path(os.environ.get("EDGE_AI_TEST_DATA", default))


@pytest.fixture
def public_data() -> Path:
    """The folder of public data sets; the test is skipped where there is none."""
    folder = data_folder()
    if not folder.is_dir():
        pytest.skip(f"no public data at {folder} (set EDGE_AI_TEST_DATA)")
    return folder


@pytest.fixture
def mill() -> Callable[..., UseCase]:
    """A small use case; each pair of arguments replaces a piece of its YAML."""

    def make(*replaced: tuple[str, str]) -> UseCase:
        text = BASE
        for old, new in replaced:
            assert old in text, old
            text = text.replace(old, new)
        return usecase.loads(text)

    return make


@pytest.fixture
def csv(tmp_path: Path) -> Callable[..., Path]:
    """Writes a CSV of the mill: the lines after the header."""

    def write(
        lines: Sequence[str], header: str = HEADER, name: str = "mill.csv", encoding: str = "utf-8"
    ) -> Path:
        path = tmp_path / name
        path.write_bytes(("\n".join([header, *lines]) + "\n").encode(encoding))
        return path

    return write
