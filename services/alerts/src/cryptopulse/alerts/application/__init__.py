"""Use cases of the alerts service and the ports they need."""
