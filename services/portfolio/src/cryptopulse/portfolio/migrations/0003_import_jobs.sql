-- Long files are imported in the background: what came in, how far it is, and what became of it.
CREATE TABLE import_job (
    id           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    portfolio_id bigint NOT NULL REFERENCES portfolio ON DELETE CASCADE,
    owner_id     text NOT NULL,
    state        text NOT NULL CHECK (state IN ('waiting', 'running', 'done', 'failed')),
    rows_read    integer NOT NULL DEFAULT 0,
    result       bytea,
    problem_code text,
    problem      text,
    created_at   timestamptz NOT NULL DEFAULT now(),
    updated_at   timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX import_job_by_portfolio ON import_job (portfolio_id, id);
CREATE INDEX import_job_by_age ON import_job (owner_id, created_at);
ALTER TABLE import_job ENABLE ROW LEVEL SECURITY;
CREATE POLICY own_rows ON import_job USING (owner_id = nullif(current_setting('app.user_id', true), ''))
    WITH CHECK (owner_id = nullif(current_setting('app.user_id', true), ''));
