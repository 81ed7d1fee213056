-- How many messages are ready in each of the given queues: the folded count
-- and what has not been folded yet. Asked before a publish to a bounded queue.
--
-- Index: queue_counts_pkey, tallies_pkey from the floor ($2) up.
SELECT
    counts.queue_id,
    counts.ready + coalesce((
        SELECT sum(tallies.ready)
        FROM postrider.tallies
        WHERE tallies.id >= $2 AND tallies.queue_id = counts.queue_id
    ), 0)::bigint AS ready
FROM postrider.queue_counts AS counts
WHERE counts.queue_id = ANY($1::bigint[])
