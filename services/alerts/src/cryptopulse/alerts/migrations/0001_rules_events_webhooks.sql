-- Rules, what happened to them, where it is sent, and up to where the markets were evaluated.

CREATE TABLE owners (
    user_id    text PRIMARY KEY,
    tier       text NOT NULL,
    updated_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE rules (
    id            text PRIMARY KEY,
    user_id       text NOT NULL,
    version       integer NOT NULL DEFAULT 1,
    state         text NOT NULL,
    symbol        text,
    type          text NOT NULL,
    home          text NOT NULL,
    definition    jsonb NOT NULL,
    runtime       jsonb NOT NULL DEFAULT '{}',
    webhook_ids   text[] NOT NULL DEFAULT '{}',
    snoozed_until timestamptz,
    expires_at    timestamptz,
    created_price numeric,
    armed_at      timestamptz NOT NULL DEFAULT now(),
    created_at    timestamptz NOT NULL DEFAULT now(),
    updated_at    timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT rules_state CHECK (state IN ('armed', 'pending', 'firing', 'cooldown', 'recovering', 'paused',
                                            'snoozed', 'expired', 'completed', 'error'))
);
CREATE INDEX rules_of_user ON rules (user_id, created_at DESC, id DESC);
CREATE INDEX rules_of_home ON rules (home, updated_at)
    WHERE state NOT IN ('paused', 'expired', 'completed', 'error');
CREATE INDEX rules_changed ON rules (updated_at);

CREATE TABLE events (
    id         text PRIMARY KEY,
    user_id    text NOT NULL,
    rule_id    text REFERENCES rules (id) ON DELETE CASCADE,
    type       text NOT NULL,
    dedupe_key text NOT NULL UNIQUE,
    at         timestamptz NOT NULL,
    symbol     text NOT NULL,
    source     text NOT NULL,
    condition  text NOT NULL,
    message    text NOT NULL,
    price      numeric,
    threshold  numeric,
    late       boolean NOT NULL DEFAULT false,
    simulated  boolean NOT NULL DEFAULT false,
    data       jsonb NOT NULL DEFAULT '{}',
    notified   boolean NOT NULL DEFAULT true,
    created_at timestamptz NOT NULL DEFAULT now(),
    acked_at   timestamptz
);
CREATE INDEX events_of_user ON events (user_id, created_at, id);
CREATE INDEX events_of_rule ON events (rule_id, created_at, id);
CREATE INDEX events_unacked ON events (user_id, created_at, id) WHERE acked_at IS NULL;

CREATE TABLE webhooks (
    id              text PRIMARY KEY,
    user_id         text NOT NULL,
    url             text NOT NULL,
    description     text,
    event_types     text[] NOT NULL DEFAULT '{}',
    enabled         boolean NOT NULL DEFAULT true,
    disabled_reason text,
    secret          bytea NOT NULL,
    old_secret      bytea,
    old_until       timestamptz,
    failures        integer NOT NULL DEFAULT 0,
    failed_messages integer NOT NULL DEFAULT 0,
    failing_since   timestamptz,
    open_until      timestamptz,
    last_success_at timestamptz,
    version         integer NOT NULL DEFAULT 1,
    created_at      timestamptz NOT NULL DEFAULT now(),
    updated_at      timestamptz NOT NULL DEFAULT now(),
    UNIQUE (user_id, url)
);

CREATE TABLE deliveries (
    id              text PRIMARY KEY,
    webhook_id      text NOT NULL REFERENCES webhooks (id) ON DELETE CASCADE,
    user_id         text NOT NULL,
    event_id        text,
    message_id      text NOT NULL,
    event_type      text NOT NULL,
    event_at        timestamptz NOT NULL,
    body            bytea NOT NULL,
    status          text NOT NULL DEFAULT 'pending',
    attempts        integer NOT NULL DEFAULT 0,
    round_attempts  integer NOT NULL DEFAULT 0,
    next_attempt_at timestamptz DEFAULT now(),
    leased_until    timestamptz,
    leased_by       text,
    last_status     integer,
    last_error      text,
    created_at      timestamptz NOT NULL DEFAULT now(),
    finished_at     timestamptz,
    UNIQUE (webhook_id, message_id),
    CONSTRAINT deliveries_status CHECK (status IN ('pending', 'delivering', 'delivered', 'failed', 'exhausted', 'cancelled'))
);
CREATE INDEX deliveries_due ON deliveries (webhook_id, next_attempt_at) WHERE status IN ('pending', 'delivering');
CREATE INDEX deliveries_of_webhook ON deliveries (webhook_id, created_at DESC, id DESC);
CREATE INDEX deliveries_finished ON deliveries (finished_at) WHERE finished_at IS NOT NULL;

CREATE TABLE attempts (
    delivery_id text NOT NULL REFERENCES deliveries (id) ON DELETE CASCADE,
    number      integer NOT NULL,
    at          timestamptz NOT NULL DEFAULT now(),
    status      integer,
    duration_ms integer NOT NULL,
    error       text,
    answer      text,
    PRIMARY KEY (delivery_id, number)
);

CREATE TABLE positions (
    symbol      text NOT NULL,
    source      text NOT NULL,
    price       numeric NOT NULL,
    at_us       bigint NOT NULL,
    received_us bigint NOT NULL,
    sequence    bigint NOT NULL DEFAULT 0,
    epoch       bigint NOT NULL DEFAULT 0,
    holes       jsonb NOT NULL DEFAULT '[]',
    owner_epoch bigint NOT NULL,
    updated_at  timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (symbol, source)
);

CREATE TABLE budgets (
    user_id    text NOT NULL,
    minute     timestamptz NOT NULL,
    used       integer NOT NULL DEFAULT 0,
    suppressed integer NOT NULL DEFAULT 0,
    summarised boolean NOT NULL DEFAULT false,
    PRIMARY KEY (user_id, minute)
);
CREATE INDEX budgets_to_summarise ON budgets (minute) WHERE suppressed > 0 AND NOT summarised;

CREATE TABLE listings (
    symbol     text NOT NULL,
    venue      text NOT NULL,
    first_seen timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (symbol, venue)
);

-- The second fence: a transaction sees its own user's rows only; the evaluation and the delivery say that they are the engine.
CREATE FUNCTION may_see(owner text) RETURNS boolean LANGUAGE sql STABLE AS
$$ SELECT owner = current_setting('app.user_id', true) OR current_setting('app.engine', true) = 'on' $$;

ALTER TABLE rules ENABLE ROW LEVEL SECURITY;
CREATE POLICY own_rules ON rules USING (may_see(user_id)) WITH CHECK (may_see(user_id));
ALTER TABLE events ENABLE ROW LEVEL SECURITY;
CREATE POLICY own_events ON events USING (may_see(user_id)) WITH CHECK (may_see(user_id));
ALTER TABLE webhooks ENABLE ROW LEVEL SECURITY;
CREATE POLICY own_webhooks ON webhooks USING (may_see(user_id)) WITH CHECK (may_see(user_id));
ALTER TABLE deliveries ENABLE ROW LEVEL SECURITY;
CREATE POLICY own_deliveries ON deliveries USING (may_see(user_id)) WITH CHECK (may_see(user_id));
