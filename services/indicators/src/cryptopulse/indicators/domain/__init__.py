"""Values and pure functions of market analytics: no I/O, no clock, no loop."""
