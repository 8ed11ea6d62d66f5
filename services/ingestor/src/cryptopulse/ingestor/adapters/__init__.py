"""The ports made real: venues, the bus, Redis."""
