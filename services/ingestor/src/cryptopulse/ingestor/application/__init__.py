"""The use cases of ingest and the ports they need."""
