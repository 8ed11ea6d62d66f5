"""Postgres, Redis, the other services and the outside world, made real."""
