-- The books: an append-only ledger, and what is derived from it by replay.
-- Row-level security is the second fence: every row names its owner, and a session without app.user_id sees nothing.
-- A pooled connection keeps an empty setting after its transaction, hence nullif.

CREATE TABLE portfolio (
    id                  bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    owner_id            text NOT NULL CHECK (owner_id <> ''),
    name                text NOT NULL,
    base_currency       text NOT NULL,
    method              text NOT NULL CHECK (method IN ('fifo', 'lifo', 'hifo', 'lofo', 'average')),
    cash_mode           text NOT NULL CHECK (cash_mode IN ('implicit', 'explicit')),
    lot_scope           text NOT NULL CHECK (lot_scope IN ('portfolio', 'account')),
    fees_in_cost_basis  boolean NOT NULL,
    holding_period_days integer NOT NULL CHECK (holding_period_days >= 0),
    is_default          boolean NOT NULL DEFAULT false,
    version             bigint NOT NULL DEFAULT 1,
    transaction_count   integer NOT NULL DEFAULT 0,
    created_at          timestamptz NOT NULL DEFAULT now(),
    updated_at          timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX portfolio_by_owner ON portfolio (owner_id, id);
CREATE UNIQUE INDEX portfolio_one_default ON portfolio (owner_id) WHERE is_default;

-- Every revision of every transaction, for ever. An edit inserts revision + 1, a delete inserts a void.
CREATE TABLE transaction_revision (
    portfolio_id     bigint NOT NULL REFERENCES portfolio ON DELETE CASCADE,
    id               bigint NOT NULL,
    revision         integer NOT NULL CHECK (revision > 0),
    owner_id         text NOT NULL,
    voided           boolean NOT NULL DEFAULT false,
    kind             text NOT NULL,
    at_us            bigint NOT NULL,
    asset            text NOT NULL,
    quantity         numeric(60, 24) NOT NULL,
    account          text NOT NULL,
    price            numeric(60, 24),
    currency         text,
    total            numeric(60, 24),
    fx_rate          numeric(60, 24),
    value            numeric(60, 24) NOT NULL,
    price_source     text NOT NULL,
    counter_asset    text,
    counter_quantity numeric(60, 24),
    fee_asset        text,
    fee              numeric(60, 24),
    fee_value        numeric(60, 24) NOT NULL,
    cost_basis       numeric(60, 24),
    acquired_us      bigint,
    to_account       text,
    note             text,
    external_id      text,
    fingerprint      text,
    allow_uncovered  boolean NOT NULL DEFAULT false,
    created_us       bigint NOT NULL,
    PRIMARY KEY (portfolio_id, id, revision)
);
CREATE SEQUENCE transaction_id AS bigint;

-- Which revision counts now; voided ones are not in it.
CREATE TABLE transaction_current (
    portfolio_id bigint NOT NULL REFERENCES portfolio ON DELETE CASCADE,
    id           bigint NOT NULL,
    revision     integer NOT NULL,
    owner_id     text NOT NULL,
    at_us        bigint NOT NULL,
    asset        text NOT NULL,
    kind         text NOT NULL,
    account      text NOT NULL,
    external_id  text,
    fingerprint  text,
    PRIMARY KEY (portfolio_id, id),
    FOREIGN KEY (portfolio_id, id, revision) REFERENCES transaction_revision (portfolio_id, id, revision)
        ON DELETE CASCADE
);
CREATE INDEX transaction_current_by_time ON transaction_current (portfolio_id, at_us DESC, id DESC);
CREATE UNIQUE INDEX transaction_current_external ON transaction_current (portfolio_id, external_id)
    WHERE external_id IS NOT NULL;
CREATE UNIQUE INDEX transaction_current_fingerprint ON transaction_current (portfolio_id, fingerprint)
    WHERE fingerprint IS NOT NULL;

CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    -- a cascade from portfolio runs one trigger deeper than a statement of its own
    IF TG_OP = 'DELETE' AND pg_trigger_depth() > 1 THEN
        RETURN OLD;
    END IF;
    RAISE EXCEPTION 'the ledger is append-only';
END $$;
CREATE TRIGGER transaction_revision_append_only BEFORE UPDATE OR DELETE ON transaction_revision
    FOR EACH ROW EXECUTE FUNCTION refuse_change();

-- Legs: the postings of the current revisions in the order of the books.
CREATE TABLE leg (
    portfolio_id bigint NOT NULL REFERENCES portfolio ON DELETE CASCADE,
    asset        text NOT NULL,
    at_us        bigint NOT NULL,
    rank         smallint NOT NULL,
    seq          bigint NOT NULL,
    leg          smallint NOT NULL,
    owner_id     text NOT NULL,
    op           text NOT NULL,
    kind         text NOT NULL,
    account      text NOT NULL,
    quantity     numeric(60, 24) NOT NULL,
    value        numeric(60, 24) NOT NULL,
    fee          numeric(60, 24) NOT NULL,
    flow         numeric(60, 24) NOT NULL,
    target       text,
    acquired_us  bigint,
    uncovered_ok boolean NOT NULL DEFAULT false,
    PRIMARY KEY (portfolio_id, asset, at_us, rank, seq, leg)
);
CREATE INDEX leg_by_transaction ON leg (portfolio_id, seq);
CREATE INDEX leg_renames ON leg (portfolio_id) WHERE op = 'N';

-- What coin an asset of a portfolio is.
CREATE TABLE asset (
    portfolio_id bigint NOT NULL REFERENCES portfolio ON DELETE CASCADE,
    asset        text NOT NULL,
    owner_id     text NOT NULL,
    coin_id      text,
    coin_name    text,
    coin_symbol  text,
    PRIMARY KEY (portfolio_id, asset)
);
CREATE UNIQUE INDEX asset_by_coin ON asset (portfolio_id, coin_id) WHERE coin_id IS NOT NULL;

-- Derived by replay: positions, and per group of assets the segments of at most 500 postings with lot matches (msgpack),
-- day ends and, for some, a checkpoint of all open lots from which a replay may go on.
CREATE TABLE position (
    portfolio_id  bigint NOT NULL REFERENCES portfolio ON DELETE CASCADE,
    asset         text NOT NULL,
    owner_id      text NOT NULL,
    component     text NOT NULL,
    quantity      numeric(60, 24) NOT NULL,
    cost          numeric(60, 24) NOT NULL,
    bare          numeric(60, 24) NOT NULL,
    realised      numeric(60, 24) NOT NULL,
    income        numeric(60, 24) NOT NULL,
    fees          numeric(60, 24) NOT NULL,
    fees_separate numeric(60, 24) NOT NULL,
    removed       numeric(60, 24) NOT NULL,
    flow_in       numeric(60, 24) NOT NULL,
    flow_out      numeric(60, 24) NOT NULL,
    accounts      jsonb NOT NULL,
    missing       jsonb NOT NULL,
    PRIMARY KEY (portfolio_id, asset)
);
CREATE TABLE segment (
    portfolio_id bigint NOT NULL REFERENCES portfolio ON DELETE CASCADE,
    component    text NOT NULL,
    no           integer NOT NULL,
    owner_id     text NOT NULL,
    postings     integer NOT NULL,
    full_length  boolean NOT NULL,
    last_at_us   bigint NOT NULL,
    last_rank    smallint NOT NULL,
    last_seq     bigint NOT NULL,
    last_leg     smallint NOT NULL,
    matches      bytea NOT NULL,
    days         bytea NOT NULL,
    state        bytea,
    PRIMARY KEY (portfolio_id, component, no)
);
ALTER TABLE segment ALTER COLUMN matches SET STORAGE EXTERNAL;
ALTER TABLE segment ALTER COLUMN days SET STORAGE EXTERNAL;
ALTER TABLE segment ALTER COLUMN state SET STORAGE EXTERNAL;

CREATE TABLE idempotency (
    owner_id     text NOT NULL,
    key          text NOT NULL,
    request_hash bytea NOT NULL,
    status       integer,
    etag         text,
    body         bytea,
    created_at   timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (owner_id, key)
);
CREATE INDEX idempotency_by_age ON idempotency (created_at);

DO $$
DECLARE
    name text;
BEGIN
    FOREACH name IN ARRAY ARRAY['portfolio', 'transaction_revision', 'transaction_current', 'leg', 'asset',
                                'position', 'segment', 'idempotency'] LOOP
        EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', name);
        EXECUTE format(
            'CREATE POLICY own_rows ON %I USING (owner_id = nullif(current_setting(''app.user_id'', true), '''')) '
            'WITH CHECK (owner_id = nullif(current_setting(''app.user_id'', true), ''''))', name);
    END LOOP;
END $$;

-- The live loop values portfolios of many owners at once: this function alone looks over the fence, for named ids only.
CREATE FUNCTION watched_positions(ids bigint[])
RETURNS TABLE (portfolio_id bigint, owner_id text, version bigint, base_currency text, positions jsonb)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = portfolio, pg_temp AS $$
    SELECT p.id, p.owner_id, p.version, p.base_currency,
           (SELECT coalesce(jsonb_agg(jsonb_build_object(
                       'asset', x.asset, 'coin_id', a.coin_id, 'quantity', x.quantity::text, 'cost', x.cost::text,
                       'bare', x.bare::text, 'realised', x.realised::text, 'income', x.income::text,
                       'fees', x.fees::text, 'fees_separate', x.fees_separate::text, 'removed', x.removed::text,
                       'flow_in', x.flow_in::text, 'flow_out', x.flow_out::text) ORDER BY x.asset), '[]'::jsonb)
              FROM position x LEFT JOIN asset a USING (portfolio_id, asset)
             WHERE x.portfolio_id = p.id)
      FROM portfolio p
     WHERE p.id = ANY (ids)
$$;
