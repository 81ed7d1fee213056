-- Which queues have told that their backlog is high, so that any number of
-- gateways tell it once, and once that it is over.

CREATE TABLE postrider.backlogs (
    queue_id  bigint PRIMARY KEY REFERENCES postrider.queues (id) ON DELETE CASCADE,
    raised_at timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE postrider.backlogs IS 'Queues whose backlog is high, as queue.backlog_high has told.';
COMMENT ON COLUMN postrider.backlogs.queue_id IS 'The queue.';
COMMENT ON COLUMN postrider.backlogs.raised_at IS 'When that was told.';
