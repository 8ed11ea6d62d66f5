"""Postgres: a pool that outlives outages, migrations as plain SQL, and the outbox."""
