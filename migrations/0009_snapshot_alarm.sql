-- What of the whole database has been warned of, so that any number of gateways
-- tell it once, and once that it is over.

CREATE TABLE postrider.alarms (
    name      text PRIMARY KEY,
    raised_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT name_is_known CHECK (name IN ('snapshot'))
);
COMMENT ON TABLE postrider.alarms IS 'What has been warned of and is not over.';
COMMENT ON COLUMN postrider.alarms.name IS 'snapshot: somebody holds a snapshot for too long, as storage.snapshot_held has told.';
COMMENT ON COLUMN postrider.alarms.raised_at IS 'When that was told.';
