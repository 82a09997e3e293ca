-- A file as it was before there were migrations, dumped by SQLite's own .dump.
PRAGMA journal_mode=WAL;
BEGIN TRANSACTION;
CREATE TABLE blob (
    digest TEXT PRIMARY KEY,                 -- SHA-256 of the data, hexadecimal
    data BLOB NOT NULL
);
INSERT INTO "blob" VALUES('e1d8e552330911f9f779f85b6f2c00a15e790dcc3fbb3b28f5da1d660a30c5b8',X'726563697065');
INSERT INTO "blob" VALUES('7692c3ad3540bb803c020b3aee66cd8887123234ea0c6e7143c0add73ff431ed',X'6F6E65');
INSERT INTO "blob" VALUES('ea5dbf9596d187e9500f23e9a680109475341cf4e81f7e043f7d97152c10772f',X'FF00');
INSERT INTO "blob" VALUES('3fc4ccfe745870e2c0d99f71f30ff0656c8dedd41cc1d7d3d376b0dbe685e2f3',X'74776F');
CREATE TABLE file (
    generation TEXT NOT NULL REFERENCES generation ON DELETE CASCADE,
    path BLOB NOT NULL,                      -- bytes, since a file's name may be no text
    digest TEXT NOT NULL REFERENCES blob,
    PRIMARY KEY (generation, path)
) WITHOUT ROWID;
INSERT INTO "file" VALUES('aaaa33334444',X'746F6F6C732F782E7079','3fc4ccfe745870e2c0d99f71f30ff0656c8dedd41cc1d7d3d376b0dbe685e2f3');
INSERT INTO "file" VALUES('aaaa11112222',X'746F6F6C732F782E7079','7692c3ad3540bb803c020b3aee66cd8887123234ea0c6e7143c0add73ff431ed');
INSERT INTO "file" VALUES('aaaa11112222',X'6D6F64656C2E7079','e1d8e552330911f9f779f85b6f2c00a15e790dcc3fbb3b28f5da1d660a30c5b8');
INSERT INTO "file" VALUES('aaaa33334444',X'6D6F64656C2E7079','e1d8e552330911f9f779f85b6f2c00a15e790dcc3fbb3b28f5da1d660a30c5b8');
INSERT INTO "file" VALUES('aaaa11112222',X'746F6F6C732FFF2E7079','ea5dbf9596d187e9500f23e9a680109475341cf4e81f7e043f7d97152c10772f');
INSERT INTO "file" VALUES('aaaa33334444',X'746F6F6C732FFF2E7079','ea5dbf9596d187e9500f23e9a680109475341cf4e81f7e043f7d97152c10772f');
CREATE TABLE generation (
    hash TEXT PRIMARY KEY                    -- as Snapshot.hash has it
);
INSERT INTO "generation" VALUES('aaaa11112222');
INSERT INTO "generation" VALUES('aaaa33334444');
CREATE TABLE run (
    id TEXT PRIMARY KEY,
    number INTEGER NOT NULL UNIQUE,          -- the order of their ends
    workspace TEXT NOT NULL,
    generation TEXT REFERENCES generation,   -- NULL: it ended before any code was pinned
    record TEXT NOT NULL                     -- JSON
);
INSERT INTO "run" VALUES('r1',1,'main','aaaa11112222','{"run_id": "r1", "workspace": "main", "generation": "aaaa11112222", "question": "w\u00e4rum?"}');
INSERT INTO "run" VALUES('r2',2,'alice',NULL,'{"run_id": "r2", "workspace": "alice", "generation": null, "question": "w\u00e4rum?"}');
CREATE TABLE take_over (                     -- when a generation became the live one of a workspace
    id INTEGER PRIMARY KEY,
    workspace TEXT NOT NULL,
    generation TEXT NOT NULL REFERENCES generation ON DELETE CASCADE,
    time REAL NOT NULL                       -- seconds since 1970
);
INSERT INTO "take_over" VALUES(1,'main','aaaa11112222',1762934400.5);
INSERT INTO "take_over" VALUES(2,'main','aaaa33334444',1762934401.25);
CREATE INDEX file_digest ON file (digest);
CREATE INDEX take_over_workspace ON take_over (workspace, id);
CREATE INDEX take_over_generation ON take_over (generation);
CREATE INDEX run_workspace ON run (workspace, number);
CREATE INDEX run_generation ON run (generation);
COMMIT;
PRAGMA user_version=1;
