"""`edge-ai`, before anything is loaded: the service's own commands get by with the service's own packages."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command that the arguments name."""
    if sys.argv[1:2] == ["serve"]:
        from edge_ai_assets.scoring.serve import main as serve

        sys.exit(serve(sys.argv[2:]))
    if sys.argv[1:2] == ["tokens"]:
        from edge_ai_assets.commands.tokens import main as tokens

        tokens(sys.argv[2:])
        return
    from edge_ai_assets.cli import main as others

    others()


if __name__ == "__main__":
    main()
