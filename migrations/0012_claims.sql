-- Consumer claims: who may do a thing that must be done once, and what was done.

CREATE SEQUENCE postrider.claim_tokens AS bigint;
COMMENT ON SEQUENCE postrider.claim_tokens IS 'Tokens of claims: each taking, of whatever key, has a greater one than those before.';

CREATE TABLE postrider.claims (
    key        text COLLATE "C" PRIMARY KEY,
    token      bigint NOT NULL,
    keep_ms    bigint NOT NULL,
    done_at    timestamptz,
    until      timestamptz NOT NULL,
    CONSTRAINT key_in_range CHECK (char_length(key) BETWEEN 1 AND 255),
    CONSTRAINT token_counts_from_one CHECK (token >= 1),
    CONSTRAINT keep_in_range CHECK (keep_ms BETWEEN 1 AND 31536000000),
    CONSTRAINT done_before_it_ends CHECK (done_at <= until)
) WITH (
    autovacuum_vacuum_scale_factor = 0.0, autovacuum_vacuum_threshold = 20000,
    autovacuum_vacuum_cost_delay = 0
);
CREATE INDEX claims_by_end ON postrider.claims (until);
COMMENT ON TABLE postrider.claims IS 'Claims that are held or done; one whose time is over is as good as none, and removed an hour later.';
COMMENT ON COLUMN postrider.claims.key IS 'What the consumer calls the thing.';
COMMENT ON COLUMN postrider.claims.token IS 'Who took it last, from claim_tokens.';
COMMENT ON COLUMN postrider.claims.keep_ms IS 'How long it is kept once it is done, milliseconds.';
COMMENT ON COLUMN postrider.claims.done_at IS 'When it was completed; null while it is held.';
COMMENT ON COLUMN postrider.claims.until IS 'The end of the lock; once it is done, the end of keeping.';
