"""The ports made real: Postgres, Redis, the bus and the other services."""
