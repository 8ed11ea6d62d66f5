"""The cases of `make bench`, one module each with a `CASE`."""
