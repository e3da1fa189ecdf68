"""The outbox's tables as SQL, and how a file of an earlier format becomes one of today's.

A score is first written in a block of `journal`, with the others of its commit. When the way home takes it
up, what its record holds goes into one of `sheets`, and all scores of a sheet become one row of `lots`: what
becomes of one becomes of all. Where their fates part, each gets a narrow row of `scores` instead. A score is
in one state: pending (no disposition yet), one of the dispositions, or uploaded with its package. What the
rows mean is said in `schema`, who changes them in `outbox` and the modules that it is made of.

`tally` counts the scores by state, kept or not, so that the counts of a large outbox cost nothing. What is
unfolded or uploaded is moved in it by the code that does it (a trigger would cost as much as the insert),
what is pruned or expires is given back by the code that removes it. Every other change, and every deletion,
is counted by a trigger, whoever does it: a row that somebody deletes by hand is missed. `packed` in it is no
state but the scores in sealed packages so far.
"""

# ruff: noqa: S608 (our own constants)
from __future__ import annotations

WAITING = "kind IS NOT NULL AND disposition IS NULL AND package IS NULL"
"""Of scores and of lots; spelled as in the index, so that SQLite uses it. The others the same."""
UNCLASSIFIED = "kind IS NULL AND disposition IS NULL"
DONE = "disposition IN ('withheld', 'uploaded', 'expired')"
DEAD = "disposition = 'quarantined'"
PACKED = "package IS NOT NULL AND disposition IS NULL"
HELD = f"reason IS NOT NULL AND {PACKED}"
"""What a package accounts for and holds back, until that is its disposition."""
STATE = """
coalesce(disposition, iif(
    reason IS NULL AND (SELECT uploaded_at FROM packages WHERE number = package) IS NOT NULL,
    'uploaded', 'pending'))"""
"""A score is uploaded with its package: nothing is written to its row for that."""

TABLES = f"""
CREATE TABLE journal(
    first INTEGER PRIMARY KEY, rows INTEGER NOT NULL, scored_at INTEGER NOT NULL, release TEXT NOT NULL,
    schema INTEGER NOT NULL, block BLOB NOT NULL);
CREATE TABLE scores(
    sequence INTEGER PRIMARY KEY AUTOINCREMENT, scored_at INTEGER NOT NULL, release TEXT NOT NULL, score REAL,
    predicted INTEGER NOT NULL, outside INTEGER NOT NULL, record BLOB NOT NULL,
    schema INTEGER NOT NULL, kind TEXT,
    disposition TEXT CHECK (disposition IN ('withheld', 'uploaded', 'quarantined', 'expired')),
    reason TEXT, package INTEGER, sheet INTEGER);
CREATE TABLE sheets(
    first INTEGER PRIMARY KEY, last INTEGER NOT NULL, rows INTEGER NOT NULL, sheet BLOB NOT NULL);
CREATE INDEX scores_unclassified ON scores(sequence) WHERE {UNCLASSIFIED};
CREATE INDEX scores_waiting ON scores(kind, sequence) WHERE {WAITING};
CREATE INDEX scores_packed ON scores(package, scored_at) WHERE {PACKED};
CREATE INDEX scores_held ON scores(package, sequence) WHERE {HELD};
CREATE INDEX scores_done ON scores(package, scored_at) WHERE {DONE};
CREATE INDEX scores_dead ON scores(sequence) WHERE {DEAD};
CREATE TABLE feedback(
    id INTEGER PRIMARY KEY AUTOINCREMENT, sequence INTEGER NOT NULL, correct INTEGER NOT NULL, note TEXT,
    role TEXT NOT NULL, given_at INTEGER NOT NULL,
    disposition TEXT CHECK (disposition IN ('withheld', 'uploaded', 'quarantined', 'expired')),
    reason TEXT, package INTEGER);
CREATE INDEX feedback_waiting ON feedback(id) WHERE disposition IS NULL AND package IS NULL;
CREATE INDEX feedback_packed ON feedback(package, id) WHERE package IS NOT NULL AND disposition IS NULL;
CREATE INDEX feedback_pending ON feedback(sequence) WHERE disposition IS NULL;
CREATE INDEX feedback_done ON feedback(package, given_at) WHERE {DONE};
CREATE TABLE requests(
    key TEXT PRIMARY KEY, first INTEGER NOT NULL, rows INTEGER NOT NULL,
    fingerprint BLOB NOT NULL DEFAULT x'') WITHOUT ROWID;
CREATE TABLE packages(
    number INTEGER PRIMARY KEY, name TEXT NOT NULL, digest TEXT NOT NULL, previous TEXT NOT NULL,
    rows INTEGER NOT NULL, feedback INTEGER NOT NULL, bytes INTEGER NOT NULL, created_at INTEGER NOT NULL,
    uploaded_at INTEGER, complete INTEGER NOT NULL DEFAULT 0, event_id INTEGER NOT NULL DEFAULT 0,
    event_number INTEGER NOT NULL DEFAULT 0, exported_at INTEGER, acknowledged_at INTEGER);
CREATE INDEX packages_unsent ON packages(number) WHERE uploaded_at IS NULL;
CREATE INDEX packages_unacknowledged ON packages(number) WHERE acknowledged_at IS NULL;
CREATE TABLE tombstones(
    package INTEGER NOT NULL, state TEXT NOT NULL, kind TEXT NOT NULL, reason TEXT NOT NULL,
    first INTEGER NOT NULL, last INTEGER NOT NULL, rows INTEGER NOT NULL, at INTEGER NOT NULL,
    PRIMARY KEY (package, state, kind, reason)) WITHOUT ROWID;
CREATE TABLE tally(state TEXT PRIMARY KEY, rows INTEGER NOT NULL) WITHOUT ROWID;
INSERT INTO tally VALUES
    ('pending', 0), ('withheld', 0), ('uploaded', 0), ('quarantined', 0), ('expired', 0), ('packed', 0);
CREATE TRIGGER scores_moved AFTER UPDATE OF disposition ON scores
    WHEN OLD.disposition IS NOT NEW.disposition BEGIN
    UPDATE tally SET rows = rows - 1 WHERE state = coalesce(OLD.disposition, 'pending');
    UPDATE tally SET rows = rows + 1 WHERE state = coalesce(NEW.disposition, 'pending');
END;
CREATE TRIGGER scores_removed AFTER DELETE ON scores BEGIN
    UPDATE tally SET rows = rows - 1 WHERE state = coalesce(OLD.disposition,
        iif(OLD.reason IS NULL AND (SELECT uploaded_at FROM packages WHERE number = OLD.package) IS NOT NULL,
            'uploaded', 'pending'));
END;
CREATE TABLE lots(
    first INTEGER PRIMARY KEY, last INTEGER NOT NULL, rows INTEGER NOT NULL, offsets BLOB NOT NULL,
    oldest INTEGER NOT NULL, newest INTEGER NOT NULL, release TEXT NOT NULL, kind TEXT NOT NULL,
    disposition TEXT CHECK (disposition IN ('withheld', 'uploaded', 'quarantined', 'expired')),
    reason TEXT, package INTEGER);
CREATE INDEX lots_span ON lots(last - first);
CREATE INDEX lots_waiting ON lots(kind, first) WHERE {WAITING};
CREATE INDEX lots_packed ON lots(package, oldest) WHERE {PACKED};
CREATE INDEX lots_held ON lots(package, first) WHERE {HELD};
CREATE INDEX lots_done ON lots(package, oldest) WHERE {DONE};
CREATE TRIGGER lots_moved AFTER UPDATE OF disposition ON lots
    WHEN OLD.disposition IS NOT NEW.disposition BEGIN
    UPDATE tally SET rows = rows - OLD.rows WHERE state = coalesce(OLD.disposition, 'pending');
    UPDATE tally SET rows = rows + NEW.rows WHERE state = coalesce(NEW.disposition, 'pending');
END;
CREATE TRIGGER lots_removed AFTER DELETE ON lots BEGIN
    UPDATE tally SET rows = rows - OLD.rows WHERE state = coalesce(OLD.disposition,
        iif(OLD.reason IS NULL AND (SELECT uploaded_at FROM packages WHERE number = OLD.package) IS NOT NULL,
            'uploaded', 'pending'));
END;
INSERT INTO sqlite_sequence SELECT 'scores', 0
    WHERE NOT EXISTS (SELECT 1 FROM sqlite_sequence WHERE name = 'scores');
"""

UPGRADES = {
    1: """
CREATE TABLE journal(
    first INTEGER PRIMARY KEY, rows INTEGER NOT NULL, scored_at INTEGER NOT NULL, release TEXT NOT NULL,
    schema INTEGER NOT NULL, block BLOB NOT NULL);
ALTER TABLE requests ADD COLUMN fingerprint BLOB NOT NULL DEFAULT x'';
""",
    2: """
DROP INDEX scores_waiting;
CREATE INDEX scores_waiting ON scores(kind, sequence)
    WHERE kind IS NOT NULL AND disposition IS NULL AND package IS NULL;
CREATE INDEX scores_done ON scores(package, scored_at)
    WHERE disposition IN ('withheld', 'uploaded', 'expired');
CREATE INDEX scores_dead ON scores(sequence) WHERE disposition = 'quarantined';
CREATE INDEX feedback_pending ON feedback(sequence) WHERE disposition IS NULL;
CREATE INDEX feedback_done ON feedback(package, given_at)
    WHERE disposition IN ('withheld', 'uploaded', 'expired');
ALTER TABLE packages ADD COLUMN complete INTEGER NOT NULL DEFAULT 0;
ALTER TABLE packages ADD COLUMN event_id INTEGER NOT NULL DEFAULT 0;
ALTER TABLE packages ADD COLUMN event_number INTEGER NOT NULL DEFAULT 0;
ALTER TABLE packages ADD COLUMN exported_at INTEGER;
ALTER TABLE packages ADD COLUMN acknowledged_at INTEGER;
CREATE INDEX packages_unacknowledged ON packages(number) WHERE acknowledged_at IS NULL;
CREATE TABLE tombstones(
    package INTEGER NOT NULL, state TEXT NOT NULL, kind TEXT NOT NULL, reason TEXT NOT NULL,
    first INTEGER NOT NULL, last INTEGER NOT NULL, rows INTEGER NOT NULL, at INTEGER NOT NULL,
    PRIMARY KEY (package, state, kind, reason)) WITHOUT ROWID;
INSERT INTO tally SELECT 'packed', coalesce(sum(rows), 0) FROM packages;
""",
    3: """
ALTER TABLE scores ADD COLUMN sheet INTEGER;
CREATE TABLE sheets(
    first INTEGER PRIMARY KEY, last INTEGER NOT NULL, rows INTEGER NOT NULL, sheet BLOB NOT NULL);
DROP INDEX scores_packed;
CREATE INDEX scores_packed ON scores(package, scored_at) WHERE package IS NOT NULL AND disposition IS NULL;
CREATE INDEX scores_held ON scores(package, sequence)
    WHERE reason IS NOT NULL AND package IS NOT NULL AND disposition IS NULL;
DROP TRIGGER scores_removed;
CREATE TRIGGER scores_removed AFTER DELETE ON scores BEGIN
    UPDATE tally SET rows = rows - 1 WHERE state = coalesce(OLD.disposition,
        iif(OLD.reason IS NULL AND (SELECT uploaded_at FROM packages WHERE number = OLD.package) IS NOT NULL,
            'uploaded', 'pending'));
END;
UPDATE tally SET rows = rows - (SELECT count(*) FROM scores WHERE disposition IS NULL AND reason IS NULL
    AND package IN (SELECT number FROM packages WHERE uploaded_at IS NOT NULL)) WHERE state = 'pending';
UPDATE tally SET rows = rows + (SELECT count(*) FROM scores WHERE disposition IS NULL AND reason IS NULL
    AND package IN (SELECT number FROM packages WHERE uploaded_at IS NOT NULL)) WHERE state = 'uploaded';
""",
    4: """
CREATE TABLE lots(
    first INTEGER PRIMARY KEY, last INTEGER NOT NULL, rows INTEGER NOT NULL, offsets BLOB NOT NULL,
    oldest INTEGER NOT NULL, newest INTEGER NOT NULL, release TEXT NOT NULL, kind TEXT NOT NULL,
    disposition TEXT CHECK (disposition IN ('withheld', 'uploaded', 'quarantined', 'expired')),
    reason TEXT, package INTEGER);
CREATE INDEX lots_span ON lots(last - first);
CREATE INDEX lots_waiting ON lots(kind, first)
    WHERE kind IS NOT NULL AND disposition IS NULL AND package IS NULL;
CREATE INDEX lots_packed ON lots(package, oldest) WHERE package IS NOT NULL AND disposition IS NULL;
CREATE INDEX lots_held ON lots(package, first)
    WHERE reason IS NOT NULL AND package IS NOT NULL AND disposition IS NULL;
CREATE INDEX lots_done ON lots(package, oldest) WHERE disposition IN ('withheld', 'uploaded', 'expired');
CREATE TRIGGER lots_moved AFTER UPDATE OF disposition ON lots
    WHEN OLD.disposition IS NOT NEW.disposition BEGIN
    UPDATE tally SET rows = rows - OLD.rows WHERE state = coalesce(OLD.disposition, 'pending');
    UPDATE tally SET rows = rows + NEW.rows WHERE state = coalesce(NEW.disposition, 'pending');
END;
CREATE TRIGGER lots_removed AFTER DELETE ON lots BEGIN
    UPDATE tally SET rows = rows - OLD.rows WHERE state = coalesce(OLD.disposition,
        iif(OLD.reason IS NULL AND (SELECT uploaded_at FROM packages WHERE number = OLD.package) IS NOT NULL,
            'uploaded', 'pending'));
END;
INSERT INTO sqlite_sequence SELECT 'scores', 0
    WHERE NOT EXISTS (SELECT 1 FROM sqlite_sequence WHERE name = 'scores');
""",
}
"""What makes each earlier format the next one. Frozen: today's text, which may change, is not in it."""
