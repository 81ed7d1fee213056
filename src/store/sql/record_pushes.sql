-- Stores what pushes came to, any number of any webhooks. $5: how many
-- milliseconds ago each began.
--
-- Index: none is read. Insert-only, into the day's partition.
INSERT INTO postrider.push_attempts
    (queue_id, message_id, token, attempt, started_at, duration_ms, outcome, status, error, answer)
SELECT
    i.queue_id, i.message_id, i.token, i.attempt, now() - i.ago_ms * interval '1 ms',
    i.duration_ms, i.outcome, i.status, i.error, i.answer
FROM unnest(
    $1::bigint[], $2::bigint[], $3::bigint[], $4::integer[], $5::bigint[], $6::integer[],
    $7::text[], $8::smallint[], $9::text[], $10::bytea[]
) AS i (
    queue_id, message_id, token, attempt, ago_ms, duration_ms, outcome, status, error, answer)
