"""The whole system on one machine without Docker: private servers, the five services, a supervisor, one line per event."""
