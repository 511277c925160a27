-- Lifetimes and idle policies are counted on the daemon's steady clock (docs/decisions/0041-a-clock-for-lifetimes.md), which began at the wall time.
ALTER TABLE microvms ADD COLUMN steady_started INTEGER NOT NULL DEFAULT 0;
ALTER TABLE microvms ADD COLUMN steady_since INTEGER NOT NULL DEFAULT 0;
-- Of its last traffic, as last stored: a few seconds behind.
ALTER TABLE microvms ADD COLUMN steady_touched INTEGER NOT NULL DEFAULT 0;
UPDATE microvms SET steady_started = started_at, steady_since = phase_since, steady_touched = phase_since;
