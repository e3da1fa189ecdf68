"""How a demo tells its story: step by step, with what was seen at each."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console


class Telling:
    """A story under way; times are seconds since it began."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.started = time.monotonic()

    @contextmanager
    def step(self, title: str) -> Iterator[Callable[[str], None]]:
        """A step of the story; what it says is shown when it is done."""
        said: list[str] = []
        begun = time.monotonic()
        with self.console.status(f"{title} …"):
            yield said.append
        now = time.monotonic()
        took = f"[green]✓[/] {now - self.started:5.0f} s  {title} [dim]({now - begun:.0f} s)[/]"
        self.console.print(took, highlight=False, soft_wrap=True)
        for text in said:
            self.console.print(f"           [dim]{text}[/]", highlight=False, soft_wrap=True)
