"""Use cases of market analytics, and the ports that they need."""
