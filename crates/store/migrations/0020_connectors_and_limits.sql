-- Customers' network connectors, and what admission counts by.

CREATE TABLE network_connectors (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    account TEXT NOT NULL,
    region TEXT NOT NULL,
    name TEXT NOT NULL,
    state TEXT NOT NULL,
    state_reason TEXT,
    -- The latest version that is ACTIVE, or the first.
    version INTEGER NOT NULL,
    -- NULL: never updated.
    update_status TEXT,
    created_at INTEGER NOT NULL,
    modified_at INTEGER NOT NULL
) STRICT;
-- A deleted connector leaves its row, so that deleting it again succeeds; its name is free.
CREATE UNIQUE INDEX network_connectors_by_name ON network_connectors (account, name) WHERE state <> 'DELETED';
CREATE INDEX network_connectors_by_any_name ON network_connectors (account, name, seq);
CREATE INDEX network_connectors_listed ON network_connectors (account, seq) WHERE state <> 'DELETED';
CREATE INDEX network_connectors_by_state ON network_connectors (account, state, seq);

CREATE TABLE network_connector_versions (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    connector TEXT NOT NULL REFERENCES network_connectors (id),
    version INTEGER NOT NULL,
    state TEXT NOT NULL,
    configuration TEXT NOT NULL,
    operator_role TEXT,
    modified_at INTEGER NOT NULL,
    UNIQUE (connector, version)
) STRICT;
CREATE INDEX network_connector_versions_listed ON network_connector_versions (connector, seq) WHERE state <> 'DELETED';

-- `minimumMemoryInMiB` of what runs: the sum of it is what a host or an account is full by.
ALTER TABLE microvms ADD COLUMN memory_mib INTEGER NOT NULL DEFAULT 2048;
UPDATE microvms SET memory_mib = coalesce(
    (SELECT json_extract(definition, '$.resources[0].minimumMemoryInMiB') FROM image_versions
     WHERE image_versions.image = microvms.image AND image_versions.major = microvms.major AND image_versions.minor = microvms.minor), 2048);
CREATE INDEX microvms_in_memory ON microvms (account, memory_mib) WHERE phase NOT IN ('SUSPENDED', 'TERMINATED');
CREATE INDEX microvms_alive ON microvms (account) WHERE phase <> 'TERMINATED';
-- What a build holds while it is IN_PROGRESS.
ALTER TABLE builds ADD COLUMN memory_mib INTEGER NOT NULL DEFAULT 0;
CREATE INDEX builds_in_memory ON builds (memory_mib) WHERE state = 'IN_PROGRESS';

-- Listings: each has an index that holds its filter and its order (`seq`), so that a page costs what is on it.
CREATE INDEX microvms_by_account_image ON microvms (account, image_arn, seq);
CREATE INDEX microvms_by_account_version ON microvms (account, major, minor, seq);
CREATE INDEX microvms_by_account_image_version ON microvms (account, image_arn, major, minor, seq);
CREATE INDEX images_listed ON images (account, seq, name) WHERE state <> 'DELETED';
CREATE INDEX image_versions_listed ON image_versions (image, seq) WHERE state <> 'DELETED';
CREATE INDEX image_versions_active ON image_versions (image, major, minor) WHERE state = 'SUCCESSFUL' AND status = 'ACTIVE';
CREATE INDEX image_versions_failed ON image_versions (image, major, minor) WHERE state = 'FAILED';

CREATE INDEX client_tokens_by_age ON client_tokens (created_at);
CREATE INDEX client_tokens_by_account ON client_tokens (account, created_at);
