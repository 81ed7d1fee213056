-- What requests with an Idempotency-Key were answered, for the next with the same
-- key.

CREATE TABLE postrider.idempotency (
    digest      bytea NOT NULL,
    day         date NOT NULL,
    fingerprint bytea NOT NULL,
    status      smallint NOT NULL,
    answer      bytea NOT NULL,
    expires_at  timestamptz NOT NULL,
    PRIMARY KEY (digest, day),
    CONSTRAINT digest_is_sha256 CHECK (octet_length(digest) = 32),
    CONSTRAINT fingerprint_is_sha256 CHECK (octet_length(fingerprint) = 32),
    CONSTRAINT only_success_is_kept CHECK (status BETWEEN 200 AND 299)
) PARTITION BY RANGE (day);
COMMENT ON TABLE postrider.idempotency IS 'Answers to requests with an Idempotency-Key, each written by the transaction that had the request''s effect; partitions of a day are dropped whole.';
COMMENT ON COLUMN postrider.idempotency.digest IS 'SHA-256 of whose key it is, the operation, the names in its path, and the key itself.';
COMMENT ON COLUMN postrider.idempotency.day IS 'The UTC date of the request.';
COMMENT ON COLUMN postrider.idempotency.fingerprint IS 'SHA-256 of what the request asked for: the same key with another payload is refused.';
COMMENT ON COLUMN postrider.idempotency.status IS 'The HTTP status of the answer.';
COMMENT ON COLUMN postrider.idempotency.answer IS 'The body of the answer, byte for byte.';
COMMENT ON COLUMN postrider.idempotency.expires_at IS 'From when the key is free again.';

-- What is known of keys; this transaction has, until it ends, those that nobody
-- else has at the moment. Nobody waits.
--
-- A function, because its query has a snapshot of its own, taken when the locks are
-- had: whoever had a key before has then committed his answer, and it is seen. So
-- two requests with one key never both find nothing, and it does not matter on
-- which side of midnight each of them is: the row's day is there for dropping
-- partitions, not for telling keys apart.
CREATE FUNCTION postrider.take_idempotency_keys(digests bytea[], numbers bigint[])
RETURNS TABLE (ord bigint, taken boolean, fingerprint bytea, status smallint, answer bytea)
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    had boolean[];
BEGIN
    SELECT array_agg(pg_try_advisory_xact_lock(n.number) ORDER BY n.ord)
    INTO had
    FROM unnest(numbers) WITH ORDINALITY AS n (number, ord);
    RETURN QUERY
        SELECT i.ord, i.had, kept.fingerprint, kept.status, kept.answer
        FROM unnest(digests, had) WITH ORDINALITY AS i (digest, had, ord)
        LEFT JOIN LATERAL (
            SELECT k.fingerprint, k.status, k.answer
            FROM postrider.idempotency AS k
            WHERE k.digest = i.digest
              -- A key is kept for 24 hours, so it is of yesterday at the earliest.
              AND k.day >= (now() AT TIME ZONE 'UTC')::date - 1
              AND k.expires_at > now()
            LIMIT 1
        ) AS kept ON true
        ORDER BY i.ord;
END;
$$;
COMMENT ON FUNCTION postrider.take_idempotency_keys IS 'What is known of idempotency keys; locks those that nobody has, until the transaction ends.';
