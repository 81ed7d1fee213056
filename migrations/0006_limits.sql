-- Bounds on how fast and how much is taken out of a queue, and put into it.

ALTER TABLE postrider.queues
    ADD COLUMN max_in_flight integer,
    ADD COLUMN publish_per_second double precision,
    ADD COLUMN receive_per_second double precision,
    ADD COLUMN rate_burst integer,
    ADD CONSTRAINT max_in_flight_in_range CHECK (max_in_flight BETWEEN 1 AND 1000000),
    ADD CONSTRAINT rates_in_range CHECK (
        publish_per_second BETWEEN 0.01 AND 1000000
        AND receive_per_second BETWEEN 0.01 AND 1000000
        AND rate_burst BETWEEN 1 AND 1000000);
COMMENT ON COLUMN postrider.queues.max_in_flight IS 'Bound on leases at a time, over all gateways; null is none.';
COMMENT ON COLUMN postrider.queues.publish_per_second IS 'Messages that each gateway takes in a second; null is no limit.';
COMMENT ON COLUMN postrider.queues.receive_per_second IS 'Receive calls that each gateway takes in a second; null is no limit.';
COMMENT ON COLUMN postrider.queues.rate_burst IS 'How many at once; null is what comes in a second.';

-- For queues with max_in_flight: how many more may be leased, until this
-- transaction ends. Another claim of the queue waits until then.
--
-- A function, because its query has a snapshot of its own, taken when the lock
-- is had: the snapshot of the statement that calls it was taken before, and does
-- not show what the claim in front has leased.
--
-- From the counts, which are exact together with what has not been folded yet:
-- whatever begins or ends a lease adds its tally in the same statement. To count
-- in parked would walk over all that is delayed, and over what is dead.
CREATE FUNCTION postrider.free_in_flight(of_queue bigint, bound bigint, tallies_from bigint)
RETURNS bigint
LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    PERFORM pg_advisory_xact_lock(hashtextextended('postrider claim', of_queue));
    RETURN coalesce((
        SELECT greatest(0, bound - counts.leased - coalesce((
            SELECT sum(tallies.leased)
            FROM postrider.tallies
            WHERE tallies.id >= tallies_from AND tallies.queue_id = of_queue
        ), 0))
        FROM postrider.queue_counts AS counts
        WHERE counts.queue_id = of_queue
    ), 0);
END;
$$;
COMMENT ON FUNCTION postrider.free_in_flight IS 'How many more messages of a queue may be leased, by this transaction only.';

-- For queues with drop_oldest: how many messages are ready over the bound, for
-- this transaction to give up. As above.
CREATE FUNCTION postrider.excess_ready(of_queue bigint, bound bigint, tallies_from bigint)
RETURNS bigint
LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    PERFORM pg_advisory_xact_lock(hashtextextended('postrider overflow', of_queue));
    RETURN coalesce((
        SELECT greatest(0, counts.ready - bound + coalesce((
            SELECT sum(tallies.ready)
            FROM postrider.tallies
            WHERE tallies.id >= tallies_from AND tallies.queue_id = of_queue
        ), 0))
        FROM postrider.queue_counts AS counts
        WHERE counts.queue_id = of_queue
    ), 0);
END;
$$;
COMMENT ON FUNCTION postrider.excess_ready IS 'How many messages of a queue are ready over its bound, for this transaction only.';
