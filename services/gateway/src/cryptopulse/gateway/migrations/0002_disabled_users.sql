-- A user whom an operator has disabled keeps his account and his keys, and may use neither until he is enabled.

ALTER TABLE users ADD COLUMN disabled_at timestamptz;
