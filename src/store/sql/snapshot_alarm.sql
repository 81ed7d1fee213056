-- snapshot_alarm: notes that a snapshot has been held for too long ($1), or no
-- longer, and answers whether that is news. The row is what makes it told once:
-- of two gateways one inserts or deletes it.
--
-- Index: alarms_pkey.
WITH raised AS (
    INSERT INTO postrider.alarms (name)
    SELECT 'snapshot' WHERE $1::boolean
    ON CONFLICT (name) DO NOTHING
    RETURNING 1
),
released AS (
    DELETE FROM postrider.alarms WHERE name = 'snapshot' AND NOT $1 RETURNING 1
)
SELECT EXISTS (SELECT FROM raised) OR EXISTS (SELECT FROM released)
