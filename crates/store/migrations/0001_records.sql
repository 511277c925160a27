-- Times are milliseconds since the Unix epoch. Enumerations are the service model's words, phases ours. `seq` gives listings an order that inserts do not disturb.

CREATE TABLE settings (
    name TEXT PRIMARY KEY,
    value BLOB NOT NULL
) STRICT;

CREATE TABLE access_keys (
    id TEXT PRIMARY KEY,
    secret TEXT NOT NULL,
    account TEXT NOT NULL,
    arn TEXT NOT NULL,
    user_id TEXT NOT NULL
) STRICT;

CREATE TABLE client_tokens (
    account TEXT NOT NULL,
    operation TEXT NOT NULL,
    token TEXT NOT NULL,
    digest TEXT NOT NULL,
    answer TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    PRIMARY KEY (account, operation, token)
) STRICT;

CREATE TABLE images (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    account TEXT NOT NULL,
    name TEXT NOT NULL,
    arn TEXT NOT NULL,
    state TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL
) STRICT;
-- A deleted image leaves its row, so that deleting it again succeeds; its name is free.
CREATE UNIQUE INDEX images_by_name ON images (account, name) WHERE state <> 'DELETED';
CREATE INDEX images_by_arn ON images (arn);

CREATE TABLE image_versions (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    image TEXT NOT NULL REFERENCES images (id),
    major INTEGER NOT NULL,
    minor INTEGER NOT NULL,
    state TEXT NOT NULL,
    status TEXT NOT NULL,
    state_reason TEXT,
    definition TEXT NOT NULL,
    image_key TEXT NOT NULL UNIQUE,
    built TEXT,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    UNIQUE (image, major, minor)
) STRICT;

CREATE TABLE builds (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    image TEXT NOT NULL REFERENCES images (id),
    major INTEGER NOT NULL,
    minor INTEGER NOT NULL,
    state TEXT NOT NULL,
    state_reason TEXT,
    sizes TEXT NOT NULL,
    timings TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL
) STRICT;
CREATE INDEX builds_by_version ON builds (image, major, minor);

CREATE TABLE microvms (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    account TEXT NOT NULL,
    endpoint TEXT NOT NULL UNIQUE,
    address TEXT,
    image TEXT NOT NULL REFERENCES images (id),
    image_arn TEXT NOT NULL,
    major INTEGER NOT NULL,
    minor INTEGER NOT NULL,
    image_key TEXT NOT NULL,
    phase TEXT NOT NULL,
    state_reason TEXT,
    settings TEXT NOT NULL,
    timings TEXT NOT NULL,
    started_at INTEGER NOT NULL,
    phase_since INTEGER NOT NULL,
    terminated_at INTEGER
) STRICT;
CREATE UNIQUE INDEX microvms_by_address ON microvms (address) WHERE phase <> 'TERMINATED';
CREATE INDEX microvms_by_image ON microvms (image, phase);
CREATE INDEX microvms_by_account ON microvms (account, seq);
CREATE INDEX microvms_live ON microvms (seq) WHERE phase <> 'TERMINATED';

CREATE TABLE tags (
    arn TEXT NOT NULL,
    key TEXT NOT NULL,
    value TEXT NOT NULL,
    PRIMARY KEY (arn, key)
) STRICT;
