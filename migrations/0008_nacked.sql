-- Nacks apart from the leases that ran out, which failed counts too.

ALTER TABLE postrider.queue_counts ADD COLUMN nacked bigint NOT NULL DEFAULT 0;
COMMENT ON COLUMN postrider.queue_counts.nacked IS 'Messages given back by a nack, or by a webhook whose push failed, ever; part of failed.';
ALTER TABLE postrider.tallies ADD COLUMN nacked integer NOT NULL DEFAULT 0;
COMMENT ON COLUMN postrider.tallies.nacked IS 'Change of the count of the same name.';
