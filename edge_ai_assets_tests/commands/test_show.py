"""Answers of the command line as tables and trees for people."""

from __future__ import annotations

from datetime import date
from io import StringIO

from rich.console import Console

from edge_ai_assets.commands import show


def test_an_explanation_has_nothing_in_it_that_only_python_reads():
    out = StringIO()
    found = {
        "insight": {"site": "bergen", "sequence": 7, "fields": {"Flow [m³/h]": 151.5}},
        "feedback": {"given": [{"day": date(2026, 1, 2), "note": None}], "none": []},
        "ledger": None,
        "release": None,
        "elsewhere": {"ledger": "on the site: edge-ai ledger show"},
    }
    show.explanation(found, Console(file=out, width=200))
    said = out.getvalue()
    assert 'fields: {"Flow [m³/h]": 151.5}' in said
    assert 'given: [{"day": "2026-01-02", "note": null}]' in said
    assert "none: -" in said
    assert "ledger: not on this machine; on the site: edge-ai ledger show" in said
    assert "release: not known any more" in said and "elsewhere" not in said
