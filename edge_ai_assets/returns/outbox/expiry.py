"""What leaves the outbox at its quota: what never leaves the site, and then the least valuable of what waits.

Of what is removed a tombstone stays, as of what `retention` removes.
"""

# ruff: noqa: S608 (the SQL is put together from this module's own constants)
from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping

from edge_ai_assets.returns.outbox import retention, store
from edge_ai_assets.returns.outbox.departures import SEALED
from edge_ai_assets.returns.outbox.layout import DONE, WAITING
from edge_ai_assets.returns.outbox.retention import EVER, UNASKED, UNASKED_LOT, Retention
from edge_ai_assets.returns.outbox.schema import KINDS, Expired


class Expiry(Retention):
    """Removes a lot, or as many scores as `retention.most` says, in each transaction."""

    def drop_withheld(self, bytes_to_free: int, at: int) -> int:
        """Remove scores that were withheld and that no package accounts for, the oldest first: under a policy
        that lists nothing no package is ever made, and `prune` would wait for its acknowledgement for ever.

        They stay counted as withheld, and a score on which feedback waits stays.

        Args:
            bytes_to_free: stops when so many are free that were not; a transaction may free more.
            at: µs, for the tombstones.

        Returns:
            How many scores went.
        """
        aim, dropped = self.size() - bytes_to_free, 0
        while self.size() > aim and (gone := self._drop(at)):
            dropped += gone
            time.sleep(store.PAUSE_SECONDS)
        if dropped:
            self._forget_requests()
        return dropped

    def expire(
        self, bytes_to_free: int, at: int, reason: str, sent: Mapping[str, int] | None = None
    ) -> Expired:
        """Remove the least valuable of what waits: in the order of schema.KINDS, the oldest first.

        What is in a package stays, and a score on which feedback waits; what is in the journal can expire
        only after it was unfolded. Nobody may seal meanwhile: the next package tells of what expired before.

        Args:
            bytes_to_free: stops when so many are free that were not; a transaction may free more.
            at: µs.
            reason: in words, for the tombstone and the next package.
            sent: by kind, up to which sequence scores may be under way already, on a queue say: they stay.

        Returns:
            What went; less than asked for when nothing more may go.
        """
        by_kind: Counter[str] = Counter()
        freed, under_way = 0, sent or {}
        for kind in KINDS:
            while freed < bytes_to_free:
                rows, size = self._expire_some(kind, at, reason, under_way.get(kind, 0))
                if not rows:
                    break
                by_kind[kind] += rows
                freed += size
                time.sleep(store.PAUSE_SECONDS)
        if by_kind:
            self._forget_requests()
        return Expired(by_kind.total(), dict(by_kind), freed)

    def _drop(self, at: int) -> int:
        """Some of what was withheld without a package, in one transaction; how many."""
        some = f"{DONE} AND package IS NULL AND disposition = 'withheld'"
        rows, lots = f"{some} AND {UNASKED} ORDER BY scored_at", f"{some} AND {UNASKED_LOT} ORDER BY oldest"
        gone = self._remove(rows, (), at) or self._remove_lots(lots, (), at, most=1)
        asked = f"SELECT first FROM lots WHERE {some} AND NOT {UNASKED_LOT} LIMIT 1"
        while not gone and (lot := self._db.execute(asked).fetchone()):
            self._divide(*lot)
            gone = self._remove(rows, (), at)
        return gone

    def _expire_some(self, kind: str, at: int, reason: str, after: int = 0) -> tuple[int, int]:
        """In one transaction; rows and bytes that went."""
        waiting = f"kind = ? AND {WAITING}"
        oldest = f"SELECT first, {UNASKED_LOT} FROM lots WHERE {waiting} AND last > ? ORDER BY first LIMIT 1"
        while (lot := self._db.execute(oldest, (kind, after)).fetchone()) and (lot[0] <= after or not lot[1]):
            self._divide(lot[0])
        between = f"{waiting} AND sequence BETWEEN ? AND ? AND {UNASKED} ORDER BY sequence"
        rows = f"SELECT sequence, sheet FROM scores WHERE {between} LIMIT {retention.most()}"
        whole = f"SELECT first, last, rows FROM lots WHERE {waiting} AND first = ? AND {UNASKED_LOT}"
        end = lot[0] - 1 if lot else EVER
        with self._transaction():
            size, gone = self.size(), (0, 0, 0)
            if found := self._db.execute(rows, (kind, after + 1, end)).fetchall():
                self._delete(found)
                gone = found[0][0], found[-1][0], len(found)
            elif lot and (one := self._db.execute(whole, (kind, lot[0])).fetchone()):
                self._delete_lot(lot[0])
                gone = one
            if gone[2]:
                (package,) = self._db.execute(f"SELECT {SEALED} + 1").fetchone()
                self._bury(package, "expired", kind, reason, gone, at)
            return gone[2], size - self.size()

    def expired_for(self, number: int) -> dict[str, int]:
        """How many scores expired after the package before this one, by reason."""
        query = "SELECT reason, sum(rows) FROM tombstones WHERE package = ? AND state = 'expired' GROUP BY 1"
        return dict(self._db.execute(query, (number,)).fetchall())
