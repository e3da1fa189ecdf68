"""Scores that could not be read: they are kept, with the reason, until a version comes that reads them."""

# ruff: noqa: S608 (the SQL is put together from this module's own constants)
from __future__ import annotations

import time

from edge_ai_assets.returns.outbox import journal, store
from edge_ai_assets.returns.outbox.journal import BLOCK_SCHEMA
from edge_ai_assets.returns.outbox.kept import Kept
from edge_ai_assets.returns.outbox.layout import DEAD
from edge_ai_assets.returns.outbox.schema import DECODERS, RECORD_SCHEMA, ScoreRow
from edge_ai_assets.returns.outbox.store import OutboxError

AGAIN = "disposition = NULL, reason = NULL, kind = NULL"


class DeadLetters(Kept):
    """Quarantined scores."""

    def dead_letters(self, limit: int, after: int = 0) -> list[ScoreRow]:
        """The oldest quarantined scores with a sequence above `after`; each has its reason."""
        return self._scores(f"{DEAD} AND sequence > ? ORDER BY sequence LIMIT ?", after, limit)

    def requeue(self, schema: int) -> int:
        """Give quarantined scores of a schema another try; how many wait for their kind again.

        Those that still cannot be read are quarantined again by who classifies them. Scores whose whole block
        could not be read are read from it now; if that fails, they stay as they are.

        Args:
            schema: as it stands in the score: of its record, or minus that of its block.

        Raises:
            OutboxError: this version does not read that schema either. Nothing changes then.
        """
        if schema not in DECODERS and schema != -BLOCK_SCHEMA:
            what = f"record schema {schema}" if schema >= 0 else f"block schema {-schema}"
            raise OutboxError(f"{what} is not known, this version reads it no better: install a newer one")
        if schema < 0:
            return self._read_blocks(schema)
        return self._sweep("scores", "sequence", AGAIN, f"{DEAD} AND schema = {int(schema)}")

    def _read_blocks(self, schema: int) -> int:
        whole = f"SELECT sequence, record FROM scores WHERE {DEAD} AND schema = ? AND record <> x''"
        follows = "SELECT 1 FROM scores WHERE sequence = one.sequence + 1 AND schema = ? AND record = x''"
        end_of_block = f"""SELECT sequence + 1 FROM scores AS one
            WHERE sequence >= ? AND NOT EXISTS ({follows}) ORDER BY sequence LIMIT 1"""
        columns = "score = ?, predicted = ?, outside = ?, record = ?"
        update = f"UPDATE scores SET {columns}, schema = {RECORD_SCHEMA}, {AGAIN} WHERE sequence = ?"
        first = made = 0
        query = f"{whole} AND sequence > ? ORDER BY sequence LIMIT 1"
        while found := self._db.execute(query, (schema, first)).fetchone():
            first, block = found
            (end,) = self._db.execute(end_of_block, (first, schema)).fetchone()
            try:
                rows = journal.rows(block, -schema, end - first)
            except ValueError:  # stays a dead letter: its reason says why
                continue
            with self._transaction():
                self._db.executemany(update, ((*row, sequence) for sequence, row in enumerate(rows, first)))
            made += len(rows)
            time.sleep(store.PAUSE_SECONDS)
        return made
