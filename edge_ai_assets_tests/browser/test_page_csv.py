"""How the page reads and writes CSV, against Python's own module."""

from __future__ import annotations

import csv
import io
import random
import re

import pytest
from playwright.sync_api import Page

pytestmark = pytest.mark.integration


def test_csv_is_read_as_python_reads_it_whatever_the_pieces(page: Page):
    chance = random.Random(3)
    alphabet = ["a", "é", " ", '"', ",", ";", "\n", "\r\n", "\r", "1.5", ""]
    cases = []
    for _ in range(400):
        rows = [
            ["".join(chance.choices(alphabet, k=chance.randrange(5))) for _ in range(chance.randrange(1, 4))]
            for _ in range(chance.randrange(1, 6))
        ]
        out = io.StringIO(newline="")
        ends = chance.choice(["\n", "\r\n", "\r"])
        # Python quotes only the line ends that it writes itself.
        quoting = csv.QUOTE_MINIMAL if ends == "\r\n" else csv.QUOTE_ALL
        csv.writer(out, delimiter=";", lineterminator=ends, quoting=quoting).writerows(rows)
        text = out.getvalue()
        cuts = sorted(chance.randrange(len(text) + 1) for _ in range(chance.randrange(6)))
        pieces = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
        lines = [1]
        for row in rows:
            lines.append(lines[-1] + 1 + sum(len(re.findall("\r\n|\r|\n", cell)) for cell in row))
        cases.append({"pieces": pieces, "rows": rows, "lines": lines[:-1]})
    read = page.evaluate(
        """async (cases) => {
          const { Parser, line } = await import('/static/csv.js');
          return cases.map(({ pieces }) => {
            const parser = new Parser(';');
            const records = [...pieces.flatMap((piece) => parser.feed(piece)), ...parser.end()];
            const rows = records.map(({ cells }) => cells);
            return [rows, records.map(({ line }) => line), rows.map((cells) => line(cells, ';')).join('')];
          });
        }""",
        cases,
    )
    for (records, lines, written), case in zip(read, cases, strict=True):
        assert (records, lines) == (case["rows"], case["lines"])
        assert list(csv.reader(io.StringIO(written, newline=""), delimiter=";")) == case["rows"]
