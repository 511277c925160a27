-- Accounts, their users and roles ("identities"), policies and access keys. Ids begin as AWS's do (AIDA, AROA, ANPA) and are never given twice; names are unique in
-- their account whatever their case. Policy documents are kept as they were given.

CREATE TABLE accounts (
    id TEXT PRIMARY KEY,
    created_at INTEGER NOT NULL
) STRICT;
INSERT INTO accounts (id, created_at) SELECT DISTINCT account, 0 FROM access_keys;

CREATE TABLE identities (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    account TEXT NOT NULL REFERENCES accounts (id),
    kind TEXT NOT NULL CHECK (kind IN ('user', 'role')),
    name TEXT NOT NULL COLLATE NOCASE,
    path TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    -- Of roles alone.
    trust TEXT,
    description TEXT,
    max_session_seconds INTEGER
) STRICT;
CREATE UNIQUE INDEX identities_by_name ON identities (account, kind, name);

-- Keys of a root have no user. (Times are 0 for what was made before this migration.)
ALTER TABLE access_keys ADD COLUMN user TEXT REFERENCES identities (id);
ALTER TABLE access_keys ADD COLUMN active INTEGER NOT NULL DEFAULT 1;
ALTER TABLE access_keys ADD COLUMN created_at INTEGER NOT NULL DEFAULT 0;
CREATE INDEX access_keys_by_user ON access_keys (user);

CREATE TABLE inline_policies (
    identity TEXT NOT NULL REFERENCES identities (id) ON DELETE CASCADE,
    name TEXT NOT NULL COLLATE NOCASE,
    document TEXT NOT NULL,
    PRIMARY KEY (identity, name)
) STRICT;

CREATE TABLE managed_policies (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    account TEXT NOT NULL REFERENCES accounts (id),
    name TEXT NOT NULL COLLATE NOCASE,
    path TEXT NOT NULL,
    arn TEXT NOT NULL UNIQUE,
    description TEXT,
    default_version INTEGER NOT NULL,
    -- Numbers of deleted versions are not given again.
    newest_version INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL
) STRICT;
CREATE UNIQUE INDEX managed_policies_by_name ON managed_policies (account, name);

CREATE TABLE policy_versions (
    policy TEXT NOT NULL REFERENCES managed_policies (id) ON DELETE CASCADE,
    version INTEGER NOT NULL,
    document TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    PRIMARY KEY (policy, version)
) STRICT;

-- By ARN: policies of AWS's own are attached, too, and have no row.
CREATE TABLE attached_policies (
    identity TEXT NOT NULL REFERENCES identities (id) ON DELETE CASCADE,
    policy_arn TEXT NOT NULL,
    PRIMARY KEY (identity, policy_arn)
) STRICT;
CREATE INDEX attached_policies_by_arn ON attached_policies (policy_arn);
