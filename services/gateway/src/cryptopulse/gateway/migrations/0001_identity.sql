-- Users, their sessions (refresh families), API keys, single-use mail tokens and idempotent answers.
-- Secrets are kept as hashes only: argon2id for passwords, SHA-256 for what is random and long.

CREATE TABLE users (
    id              uuid PRIMARY KEY,
    email           text NOT NULL UNIQUE CHECK (email = lower(email) AND length(email) <= 254),
    password_hash   text NOT NULL,
    tier            text NOT NULL DEFAULT 'free',
    is_admin        boolean NOT NULL DEFAULT false,
    verified_at     timestamptz,
    failed_logins   integer NOT NULL DEFAULT 0,
    locked_until    timestamptz,
    created_at      timestamptz NOT NULL,
    password_at     timestamptz NOT NULL
);

CREATE TABLE sessions (
    id              uuid PRIMARY KEY,
    user_id         uuid NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    device          text NOT NULL DEFAULT '',
    address         text NOT NULL DEFAULT '',
    created_at      timestamptz NOT NULL,
    last_used_at    timestamptz NOT NULL,
    ends_at         timestamptz NOT NULL,
    revoked_at      timestamptz,
    revoked_reason  text
);
CREATE INDEX sessions_of_user ON sessions (user_id, created_at DESC);

CREATE TABLE refresh_tokens (
    hash            bytea PRIMARY KEY,
    session_id      uuid NOT NULL REFERENCES sessions (id) ON DELETE CASCADE,
    issued_at       timestamptz NOT NULL,
    expires_at      timestamptz NOT NULL,
    spent_at        timestamptz
);
CREATE INDEX refresh_tokens_of_session ON refresh_tokens (session_id);

CREATE TABLE api_keys (
    id              text PRIMARY KEY CHECK (length(id) = 8),
    user_id         text NOT NULL,
    name            text NOT NULL,
    hash            bytea NOT NULL,
    scopes          text[] NOT NULL,
    tier            text NOT NULL,
    addresses       text[] NOT NULL DEFAULT '{}',
    created_at      timestamptz NOT NULL,
    expires_at      timestamptz,
    revoked_at      timestamptz,
    last_used_at    timestamptz,
    last_address    text,
    replaces        text
);
CREATE INDEX api_keys_of_user ON api_keys (user_id, created_at DESC, id DESC);

CREATE TABLE mail_tokens (
    hash            bytea PRIMARY KEY,
    user_id         uuid NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    purpose         text NOT NULL CHECK (purpose IN ('verify', 'reset')),
    expires_at      timestamptz NOT NULL,
    used_at         timestamptz
);
CREATE INDEX mail_tokens_of_user ON mail_tokens (user_id);

CREATE TABLE idempotency (
    principal       text NOT NULL,
    key             text NOT NULL,
    request_hash    bytea NOT NULL,
    status          integer,
    headers         jsonb,
    body            bytea,
    created_at      timestamptz NOT NULL,
    expires_at      timestamptz NOT NULL,
    PRIMARY KEY (principal, key)
);
CREATE INDEX idempotency_expiry ON idempotency (expires_at);
