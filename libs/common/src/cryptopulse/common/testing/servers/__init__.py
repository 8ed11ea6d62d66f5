"""Private RabbitMQ, Redis and Postgres on loopback: found, booted as child processes, and gone with their parent.

One place for the tests and for `make run`: the packages are installed apart, so what both need lives in the library
(docs/adr/0004). Nothing here needs pytest, and no service imports it.
"""
