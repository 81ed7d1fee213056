-- Only for those who ask for a wake time. With the plain index a plan made while
-- little was parked could look for one message through all of its queue's
-- (queue_id = ..., and the rest as a filter), over the dead entries of every lease
-- that was acked since the last vacuum: 50 to 100 entries an ack, which took half
-- of the rate of receive and ack.
--
-- No condition but one on wake_at implies the predicate, which is always true.
DROP INDEX postrider.parked_by_wake;
CREATE INDEX parked_by_wake ON postrider.parked (queue_id, wake_at) WHERE wake_at IS NOT NULL;
