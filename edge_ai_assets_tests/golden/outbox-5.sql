BEGIN TRANSACTION;
CREATE TABLE feedback(
    id INTEGER PRIMARY KEY AUTOINCREMENT, sequence INTEGER NOT NULL, correct INTEGER NOT NULL, note TEXT,
    role TEXT NOT NULL, given_at INTEGER NOT NULL,
    disposition TEXT CHECK (disposition IN ('withheld', 'uploaded', 'quarantined', 'expired')),
    reason TEXT, package INTEGER);
INSERT INTO "feedback" VALUES(1,1,0,'sensor fault','operator',1760000000000001,'uploaded',NULL,1);
CREATE TABLE journal(
    first INTEGER PRIMARY KEY, rows INTEGER NOT NULL, scored_at INTEGER NOT NULL, release TEXT NOT NULL,
    schema INTEGER NOT NULL, block BLOB NOT NULL);
INSERT INTO "journal" VALUES(6,1,1760000000000004,'sha256:5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e',1,X'86A56E616D657392AC466C6F77205B6DC2B32F685DA950756D702074797065A676616C756573C410A4703D0AD7FB6240000000000000F0BFA5746578747381A950756D70207479706591C0A673636F726573C408000000000000E03FA5666C616773C40101A7636F6E7465787483A55F74696D6591B3323032362D30332D30315430303A30343A3030A45F72756E91A137A45F726F779101');
CREATE TABLE lots(
    first INTEGER PRIMARY KEY, last INTEGER NOT NULL, rows INTEGER NOT NULL, offsets BLOB NOT NULL,
    oldest INTEGER NOT NULL, newest INTEGER NOT NULL, release TEXT NOT NULL, kind TEXT NOT NULL,
    disposition TEXT CHECK (disposition IN ('withheld', 'uploaded', 'quarantined', 'expired')),
    reason TEXT, package INTEGER);
INSERT INTO "lots" VALUES(2,2,1,X'',1760000000000000,1760000000000000,'sha256:5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e','normal','withheld','kind normal is not listed',NULL);
CREATE TABLE packages(
    number INTEGER PRIMARY KEY, name TEXT NOT NULL, digest TEXT NOT NULL, previous TEXT NOT NULL,
    rows INTEGER NOT NULL, feedback INTEGER NOT NULL, bytes INTEGER NOT NULL, created_at INTEGER NOT NULL,
    uploaded_at INTEGER, complete INTEGER NOT NULL DEFAULT 0, event_id INTEGER NOT NULL DEFAULT 0,
    event_number INTEGER NOT NULL DEFAULT 0, exported_at INTEGER, acknowledged_at INTEGER);
INSERT INTO "packages" VALUES(1,'bergen-00000001.zip','0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a','',1,1,99,1760000000000002,1760000000000003,2,19,7,1760000000000004,1760000000000005);
CREATE TABLE requests(
    key TEXT PRIMARY KEY, first INTEGER NOT NULL, rows INTEGER NOT NULL,
    fingerprint BLOB NOT NULL DEFAULT x'') WITHOUT ROWID;
INSERT INTO "requests" VALUES('key 1',1,4,X'5E5E5E5E5E5E5E5E5E5E5E5E5E5E5E5E5E5E5E5E5E5E5E5E5E5E5E5E5E5E5E5E');
INSERT INTO "requests" VALUES('key 2',5,1,X'5E5E5E5E5E5E5E5E5E5E5E5E5E5E5E5E5E5E5E5E5E5E5E5E5E5E5E5E5E5E5E5E');
CREATE TABLE scores(
    sequence INTEGER PRIMARY KEY AUTOINCREMENT, scored_at INTEGER NOT NULL, release TEXT NOT NULL, score REAL,
    predicted INTEGER NOT NULL, outside INTEGER NOT NULL, record BLOB NOT NULL,
    schema INTEGER NOT NULL, kind TEXT,
    disposition TEXT CHECK (disposition IN ('withheld', 'uploaded', 'quarantined', 'expired')),
    reason TEXT, package INTEGER, sheet INTEGER);
INSERT INTO "scores" VALUES(1,1760000000000000,'sha256:5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e',0.9375,1,0,X'',1,'anomaly',NULL,NULL,1,1);
INSERT INTO "scores" VALUES(3,1760000000000000,'sha256:5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e',0.75,1,0,X'',1,'anomaly',NULL,NULL,NULL,1);
INSERT INTO "scores" VALUES(4,1760000000000000,'sha256:5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e',NULL,0,0,X'6E6F20626C6F636B',-1,NULL,'quarantined','its block, of schema 1, could not be read: it is damaged',NULL,NULL);
CREATE TABLE sheets(
    first INTEGER PRIMARY KEY, last INTEGER NOT NULL, rows INTEGER NOT NULL, sheet BLOB NOT NULL);
INSERT INTO "sheets" VALUES(1,3,2,X'88A56E616D657392AC466C6F77205B6DC2B32F685DA950756D702074797065A676616C756573C420A4703D0AD7FB6240000000000000F0BFA4703D0AD7FB6240000000000000F0BFA5746578747381A950756D70207479706592C0C0A673636F726573C410000000000000EE3F000000000000E83FA5666C616773C4020101A7636F6E7465787483A55F74696D6592B3323032362D30332D30315430303A30343A3030B3323032362D30332D30315430303A30343A3030A45F72756E92A137A137A45F726F77920101A973657175656E636573C41001000000000000000300000000000000A574696D6573C4100000CEEEB54006000000CEEEB5400600');
INSERT INTO "sheets" VALUES(2,2,1,X'88A56E616D657392AC466C6F77205B6DC2B32F685DA950756D702074797065A676616C756573C410A4703D0AD7FB6240000000000000F0BFA5746578747381A950756D70207479706591C0A673636F726573C408000000000000D03FA5666C616773C40100A7636F6E7465787483A55F74696D6591B3323032362D30332D30315430303A30343A3030A45F72756E91A137A45F726F779101A973657175656E636573C4080200000000000000A574696D6573C4080000CEEEB5400600');
CREATE TABLE tally(state TEXT PRIMARY KEY, rows INTEGER NOT NULL) WITHOUT ROWID;
INSERT INTO "tally" VALUES('expired',1);
INSERT INTO "tally" VALUES('packed',1);
INSERT INTO "tally" VALUES('pending',1);
INSERT INTO "tally" VALUES('quarantined',1);
INSERT INTO "tally" VALUES('uploaded',1);
INSERT INTO "tally" VALUES('withheld',1);
CREATE TABLE tombstones(
    package INTEGER NOT NULL, state TEXT NOT NULL, kind TEXT NOT NULL, reason TEXT NOT NULL,
    first INTEGER NOT NULL, last INTEGER NOT NULL, rows INTEGER NOT NULL, at INTEGER NOT NULL,
    PRIMARY KEY (package, state, kind, reason)) WITHOUT ROWID;
INSERT INTO "tombstones" VALUES(2,'expired','normal','quota',5,5,1,1760000000000006);
CREATE INDEX scores_unclassified ON scores(sequence) WHERE kind IS NULL AND disposition IS NULL;
CREATE INDEX scores_waiting ON scores(kind, sequence) WHERE kind IS NOT NULL AND disposition IS NULL AND package IS NULL;
CREATE INDEX scores_packed ON scores(package, scored_at) WHERE package IS NOT NULL AND disposition IS NULL;
CREATE INDEX scores_held ON scores(package, sequence) WHERE reason IS NOT NULL AND package IS NOT NULL AND disposition IS NULL;
CREATE INDEX scores_done ON scores(package, scored_at) WHERE disposition IN ('withheld', 'uploaded', 'expired');
CREATE INDEX scores_dead ON scores(sequence) WHERE disposition = 'quarantined';
CREATE INDEX feedback_waiting ON feedback(id) WHERE disposition IS NULL AND package IS NULL;
CREATE INDEX feedback_packed ON feedback(package, id) WHERE package IS NOT NULL AND disposition IS NULL;
CREATE INDEX feedback_pending ON feedback(sequence) WHERE disposition IS NULL;
CREATE INDEX feedback_done ON feedback(package, given_at) WHERE disposition IN ('withheld', 'uploaded', 'expired');
CREATE INDEX packages_unsent ON packages(number) WHERE uploaded_at IS NULL;
CREATE INDEX packages_unacknowledged ON packages(number) WHERE acknowledged_at IS NULL;
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
CREATE INDEX lots_span ON lots(last - first);
CREATE INDEX lots_waiting ON lots(kind, first) WHERE kind IS NOT NULL AND disposition IS NULL AND package IS NULL;
CREATE INDEX lots_packed ON lots(package, oldest) WHERE package IS NOT NULL AND disposition IS NULL;
CREATE INDEX lots_held ON lots(package, first) WHERE reason IS NOT NULL AND package IS NOT NULL AND disposition IS NULL;
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
DELETE FROM "sqlite_sequence";
INSERT INTO "sqlite_sequence" VALUES('scores',5);
INSERT INTO "sqlite_sequence" VALUES('feedback',1);
COMMIT;
PRAGMA user_version = 5;
