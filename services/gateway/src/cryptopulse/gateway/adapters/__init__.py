"""The gateway's ports made real: Redis, Postgres, the other services, mail."""
