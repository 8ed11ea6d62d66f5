"""The ports made real: Redis, Postgres, the bus, worker processes."""
