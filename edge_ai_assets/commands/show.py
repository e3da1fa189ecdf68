"""Answers of the command line as tables for people. What is in them is decided elsewhere."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table
from rich.tree import Tree

if TYPE_CHECKING:
    from edge_ai_assets.demo.outcome import Outcome


def console() -> Console:
    """Standard output; wide enough for the tables where there is no terminal that says how wide it is."""
    return Console(width=None if sys.stdout.isatty() else 140)


def status(now: dict[str, Any], console: Console) -> None:
    """The sites and Azure's side."""
    from edge_ai_assets.status import PARTS, conserved

    table = Table("site", *(part for part in PARTS), "adds up", "release", "link", "page")
    for part in range(1, 1 + len(PARTS)):
        table.columns[part].justify = "right"
    for name, site in now["sites"].items():
        numbers = ["-" if site[part] is None else f"{site[part]:,}" for part in PARTS]
        adds_up = "[green]yes[/]" if conserved(site) else "[red]damaged[/]" if site["error"] else "[red]NO[/]"
        serving = "unknown" if site["serving"] is None else "not serving"
        table.add_row(
            name,
            *numbers,
            adds_up if site["here"] else "unknown here",
            str(site["release"] or "-"),
            site["link"] or "unknown",
            site["page"] or serving,
        )
    console.print(table)
    for name, site in now["sites"].items():
        if site["error"]:
            console.print(
                f"[red]DAMAGED:[/] {name}: {escape(site['error'])}", highlight=False, soft_wrap=True
            )
        if (trust := site["trust"]) and trust["state"] == "stale":
            console.print(
                f"[red]STALE:[/] {name} relies on what it heard until {trust['until']}", highlight=False
            )
    _removed(now["sites"], console)
    world = now["global"]
    if world["insights"] is None:
        console.print("Azure: unknown here, this is a site's own home", highlight=False)
        return
    console.print(
        f"Azure: {world['insights']:,} insights, {world['duplicates']} twice; newest release: "
        f"{world['releases'] or 'none'}; retrained: {world['retrainings']}",
        highlight=False,
    )
    for name, sentence in world["completeness"].items():
        console.print(f"  {name}: {sentence}", highlight=False, markup=False)


def _removed(sites: dict[str, Any], console: Console) -> None:
    """Scores that are no longer kept at the sites, and why."""
    table = Table("site", "no longer kept", "kind", "why", Column("scores", justify="right"), "until")
    for name, site in sites.items():
        for row in site["removed"] or ():
            why = escape(row["reason"] or "-")
            table.add_row(name, row["state"], row["kind"] or "-", why, f"{row['rows']:,}", row["at"])
    if table.row_count:
        console.print(table)


def outcome(found: Outcome, console: Console) -> None:
    """What the demo showed, and where to look."""
    console.print()
    table = Table("promise", "", "seen")
    for what, kept, seen in found.promises:
        table.add_row(escape(what), "[green]kept[/]" if kept else "[red]BROKEN[/]", escape(seen))
    console.print(table)
    status(found.status, console)
    if found.before and found.after:
        console.print(
            f"F1 on the last readings: {found.before.f1:.3f} with release 1, {found.after.f1:.3f} now; "
            f"false alarm rate {found.before.false_alarm_rate:.1%} and {found.after.false_alarm_rate:.1%}",
            highlight=False,
        )
    console.print(f"\n{found.seconds:.0f} seconds. Where to look:", highlight=False)
    for command, shows in found.look:
        console.print(f"  {escape(command)}   {escape(shows)}", soft_wrap=True, highlight=False)


def outcome_json(found: Outcome) -> dict[str, Any]:
    """What the demo showed, for scripts."""
    return {
        "kept": found.kept,
        "seconds": round(found.seconds, 1),
        "promises": [{"promise": what, "kept": kept, "seen": seen} for what, kept, seen in found.promises],
        "before": asdict(found.before) if found.before else None,
        "after": asdict(found.after) if found.after else None,
        "insight": found.insight,
        "status": found.status,
    }


def explanation(found: dict[str, Any], console: Console) -> None:
    """The way of an insight, as a tree."""
    insight = found["insight"]
    tree = Tree(f"[b]insight {insight['site']}/{insight['sequence']}[/]")
    elsewhere = found["elsewhere"]
    for name, part in found.items():
        if part is elsewhere:
            continue
        if part is None:
            told = f"not on this machine; {elsewhere[name]}" if name in elsewhere else "not known any more"
            tree.add(escape(f"{name}: {told}"))
            continue
        branch = tree.add(f"[b]{name}[/]")
        for key, value in part.items():
            branch.add(escape(f"{key}: {_plain(value)}"))  # to rich, the unit in "Pressure [bar]" is a style
    console.print(tree, highlight=False, soft_wrap=True)


def _plain(value: Any) -> str:
    """A value as people write it: what has parts as JSON."""
    if isinstance(value, dict | list):
        return json.dumps(value, default=str, ensure_ascii=False) if value else "-"
    return str(value)
