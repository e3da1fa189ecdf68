"""The model servers that people would pick, each in a virtual environment of its own.

`python benchmarks/scoring/peers.py install [NAME…]` makes the environments, under the user's cache folder;
the benchmark uses those that are there. What a peer is asked and how it is started is `candidates`' matter.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import venv
from collections.abc import Sequence
from pathlib import Path

HERE = Path(__file__).resolve().parent
REQUIREMENTS = HERE / "requirements"
INSTALLED = ".installed"
"""In an environment, once all is in it: the interpreter and the requirements it was made from."""


def names() -> list[str]:
    """All peers that could be installed."""
    return sorted(path.stem for path in REQUIREMENTS.glob("*.txt"))


def environment(name: str) -> Path:
    """Where the peer's virtual environment is, or would be."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "edge_ai_assets" / "peers" / name


def installed(name: str) -> bool:
    """Whether the peer is there, in the versions that are asked for, and on the interpreter that runs ours.

    Builds of one Python version differ by a third in speed.
    """
    try:
        return (environment(name) / INSTALLED).read_text() == _made_from(name)
    except FileNotFoundError:
        return False


def install(name: str) -> None:
    """Make the peer's environment anew.

    Raises:
        CalledProcessError: pip failed; it has said why.
    """
    folder = environment(name)
    venv.create(folder, clear=True, with_pip=True)
    python, wanted = folder / "bin" / "python", REQUIREMENTS / f"{name}.txt"
    subprocess.run([python, "-m", "pip", "install", "--quiet", "--requirement", wanted], check=True)
    (folder / INSTALLED).write_text(_made_from(name))


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("command", choices=["install", "list"])
    parser.add_argument(
        "name", nargs="*", metavar="NAME", choices=[[], *names()], help="all if none is given"
    )
    options = parser.parse_args(arguments)
    for name in options.name or names():
        if options.command == "install" and not installed(name):
            print(f"{name}: installing into {environment(name)}", file=sys.stderr)
            install(name)
        print(f"{name}: {'installed' if installed(name) else 'not installed'}")
    return 0


def _made_from(name: str) -> str:
    return f"# {sys.base_prefix}, {sys.version}\n{(REQUIREMENTS / f'{name}.txt').read_text()}"


if __name__ == "__main__":
    sys.exit(main())
