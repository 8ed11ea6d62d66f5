-- The market schema: series, candles by interval and time, instruments, coins.

CREATE TABLE series (
    id     integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    symbol text NOT NULL,
    source text NOT NULL,
    UNIQUE (symbol, source)
);

CREATE TABLE candles (
    series_id        integer  NOT NULL,
    bar_interval     text     NOT NULL,
    open_time        bigint   NOT NULL,  -- ms UTC
    open             numeric  NOT NULL,
    high             numeric  NOT NULL,
    low              numeric  NOT NULL,
    close            numeric  NOT NULL,
    volume           numeric  NOT NULL,
    quote_volume     numeric  NOT NULL,
    trades           bigint   NOT NULL,
    taker_buy_volume numeric  NOT NULL,
    first_id         bigint,
    last_id          bigint,
    complete         boolean  NOT NULL,
    origin           smallint NOT NULL,  -- -1 merged from venues' history, 0 built from ticks, 1 the venue's own candle
    revision         integer  NOT NULL,
    epoch            bigint   NOT NULL,  -- of the shard's owner who wrote it
    simulated        boolean  NOT NULL,
    PRIMARY KEY (series_id, bar_interval, open_time)
) PARTITION BY LIST (bar_interval);

CREATE TABLE candles_1m  PARTITION OF candles FOR VALUES IN ('1m')  PARTITION BY RANGE (open_time);
CREATE TABLE candles_5m  PARTITION OF candles FOR VALUES IN ('5m')  PARTITION BY RANGE (open_time);
CREATE TABLE candles_15m PARTITION OF candles FOR VALUES IN ('15m') PARTITION BY RANGE (open_time);
CREATE TABLE candles_30m PARTITION OF candles FOR VALUES IN ('30m') PARTITION BY RANGE (open_time);
CREATE TABLE candles_long PARTITION OF candles FOR VALUES IN ('1h', '2h', '4h', '6h', '12h', '1d', '1w', '1M');

-- Minutes are kept by the month, 5 to 30 minutes by the year. The service's role owns no table, so it asks for a
-- partition through this function; a partition that exists is no error.
CREATE FUNCTION ensure_candle_partition(wanted_interval text, at_ms bigint) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
    unit   text := CASE WHEN wanted_interval = '1m' THEN 'month' ELSE 'year' END;
    start  timestamp := date_trunc(unit, to_timestamp(at_ms / 1000.0) AT TIME ZONE 'UTC');
    finish timestamp := start + ('1 ' || unit)::interval;
    name   text := 'candles_' || wanted_interval || '_' || to_char(start, CASE WHEN unit = 'month' THEN 'YYYYMM' ELSE 'YYYY' END);
BEGIN
    IF wanted_interval NOT IN ('1m', '5m', '15m', '30m') THEN
        RETURN 'candles_long';
    END IF;
    IF to_regclass(quote_ident(name)) IS NOT NULL THEN
        RETURN name;
    END IF;
    PERFORM pg_advisory_xact_lock(hashtext('candle partition ' || name));
    BEGIN
        EXECUTE format(
            'CREATE TABLE %I PARTITION OF %I FOR VALUES FROM (%s) TO (%s)',
            name, 'candles_' || wanted_interval,
            (extract(epoch FROM start AT TIME ZONE 'UTC') * 1000)::bigint,
            (extract(epoch FROM finish AT TIME ZONE 'UTC') * 1000)::bigint
        );
    EXCEPTION WHEN duplicate_table THEN
        -- Made by another owner while we waited for the lock.
        NULL;
    END;
    RETURN name;
END
$$;

-- Retention: drops the partitions of an interval that end before a time; answers how many went.
CREATE FUNCTION drop_candle_partitions(wanted_interval text, before_ms bigint) RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
    part  record;
    gone  integer := 0;
BEGIN
    IF wanted_interval NOT IN ('1m', '5m', '15m', '30m') THEN
        RETURN 0;
    END IF;
    FOR part IN
        SELECT child.relname AS name,
               (regexp_match(pg_get_expr(child.relpartbound, child.oid), 'TO \(''?(-?\d+)''?\)'))[1]::bigint AS ends
        FROM pg_inherits
        JOIN pg_class parent ON parent.oid = inhparent
        JOIN pg_class child ON child.oid = inhrelid
        WHERE parent.oid = to_regclass('candles_' || wanted_interval)
    LOOP
        IF part.ends <= before_ms THEN
            EXECUTE format('DROP TABLE %I', part.name);
            gone := gone + 1;
        END IF;
    END LOOP;
    RETURN gone;
END
$$;

CREATE TABLE instruments (
    venue           text NOT NULL,
    symbol          text NOT NULL,
    native          text NOT NULL,
    status          text NOT NULL,
    price_increment numeric,
    size_increment  numeric,
    coin_id         text,
    subscribed      boolean NOT NULL,
    simulated       boolean NOT NULL,
    updated_us      bigint NOT NULL,
    PRIMARY KEY (venue, symbol)
);

CREATE TABLE coins (
    id                 text PRIMARY KEY,
    symbol             text NOT NULL,
    name               text NOT NULL,
    image              text,
    market_cap_rank    integer,
    market_cap         numeric,
    circulating_supply numeric,
    price              numeric,
    change_24h         numeric,
    change_24h_pct     numeric,
    volume_24h         numeric,
    updated_us         bigint,
    simulated          boolean NOT NULL
);
