-- fold: tallies -> queue_counts, up to $2 rows from the floor ($1) up. Each is
-- deleted by the statement that adds it, so it counts once whoever folds.
--
-- Index: tallies_pkey in order; queue_counts_pkey. Counters are locked in key
-- order. The answer is where the next fold may begin once no statement that
-- runs now is left: the lowest id seen.
WITH picked AS MATERIALIZED (
    SELECT tallies.ctid AS tid
    FROM postrider.tallies
    WHERE tallies.id >= $1
    ORDER BY tallies.id
    LIMIT $2
    FOR UPDATE OF tallies SKIP LOCKED
),
gone AS (
    DELETE FROM postrider.tallies
    WHERE ctid = ANY(ARRAY(SELECT tid FROM picked))
    RETURNING *
),
sums AS MATERIALIZED (
    SELECT
        queue_id, sum(ready) AS ready, sum(leased) AS leased, sum(delayed) AS delayed,
        sum(dead) AS dead, sum(published) AS published, sum(delivered) AS delivered,
        sum(acked) AS acked, sum(nacked) AS nacked, sum(failed) AS failed,
        sum(dead_lettered) AS dead_lettered,
        sum(expired) AS expired, sum(removed) AS removed
    FROM gone
    GROUP BY queue_id
    ORDER BY queue_id
),
locked AS MATERIALIZED (
    SELECT counts.queue_id
    FROM postrider.queue_counts AS counts
    WHERE counts.queue_id = ANY(ARRAY(SELECT queue_id FROM sums))
    ORDER BY counts.queue_id
    FOR UPDATE OF counts
),
folded AS (
    UPDATE postrider.queue_counts AS c
    SET ready = c.ready + sums.ready,
        leased = c.leased + sums.leased,
        delayed = c.delayed + sums.delayed,
        dead = c.dead + sums.dead,
        published = c.published + sums.published,
        delivered = c.delivered + sums.delivered,
        acked = c.acked + sums.acked,
        nacked = c.nacked + sums.nacked,
        failed = c.failed + sums.failed,
        dead_lettered = c.dead_lettered + sums.dead_lettered,
        expired = c.expired + sums.expired,
        removed = c.removed + sums.removed
    FROM sums, locked
    WHERE c.queue_id = locked.queue_id AND sums.queue_id = locked.queue_id
)
SELECT count(*) AS folded FROM gone
