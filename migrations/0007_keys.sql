-- API keys: who may do what. A key is `pr_ID_SECRET`; here is only a keyed hash
-- of its secret.

CREATE TABLE postrider.api_keys (
    id                   text COLLATE "C" PRIMARY KEY,
    name                 text NOT NULL,
    hash                 bytea NOT NULL,
    previous_hash        bytea,
    previous_expires_at  timestamptz,
    scopes               text[] NOT NULL,
    requests_per_second  double precision,
    burst                integer,
    created_at           timestamptz NOT NULL DEFAULT now(),
    expires_at           timestamptz,
    last_used_at         timestamptz,
    CONSTRAINT id_is_an_id CHECK (id ~ '^[0-9a-f]{12}$'),
    CONSTRAINT name_is_short CHECK (length(name) BETWEEN 1 AND 200),
    CONSTRAINT hashes_are_sha256 CHECK (length(hash) = 32 AND length(previous_hash) = 32),
    CONSTRAINT previous_is_whole CHECK ((previous_hash IS NULL) = (previous_expires_at IS NULL)),
    CONSTRAINT scopes_are_there CHECK (cardinality(scopes) BETWEEN 1 AND 100),
    CONSTRAINT limit_in_range CHECK (requests_per_second > 0 AND burst >= 1),
    CONSTRAINT limit_is_whole CHECK ((requests_per_second IS NULL) = (burst IS NULL))
);
COMMENT ON TABLE postrider.api_keys IS 'API keys that were not revoked.';
COMMENT ON COLUMN postrider.api_keys.id IS 'The part of the key that is no secret.';
COMMENT ON COLUMN postrider.api_keys.name IS 'What its maker calls it.';
COMMENT ON COLUMN postrider.api_keys.hash IS 'HMAC-SHA256 of the key, by a key derived from cluster.secret.';
COMMENT ON COLUMN postrider.api_keys.previous_hash IS 'The same of the key before it was rotated.';
COMMENT ON COLUMN postrider.api_keys.previous_expires_at IS 'Until when that one is good, too.';
COMMENT ON COLUMN postrider.api_keys.scopes IS 'What it may do.';
COMMENT ON COLUMN postrider.api_keys.requests_per_second IS 'Its rate limit at each gateway; null is none.';
COMMENT ON COLUMN postrider.api_keys.burst IS 'Requests above that rate that may come at once.';
COMMENT ON COLUMN postrider.api_keys.created_at IS 'When it was made.';
COMMENT ON COLUMN postrider.api_keys.expires_at IS 'From when it is no good any more; null is never.';
COMMENT ON COLUMN postrider.api_keys.last_used_at IS 'Its last request, to the minute.';

-- Gateways keep keys in memory and read this number with each heartbeat.
ALTER TABLE postrider.cluster ADD COLUMN keys_version bigint NOT NULL DEFAULT 1;
COMMENT ON COLUMN postrider.cluster.keys_version IS 'Counts the changes of api_keys after which a gateway has to read them anew.';
ALTER TABLE postrider.cluster ADD COLUMN first_key_made boolean NOT NULL DEFAULT false;
COMMENT ON COLUMN postrider.cluster.first_key_made IS 'Whether a gateway has made the first admin key; it is done once in the life of a database.';
