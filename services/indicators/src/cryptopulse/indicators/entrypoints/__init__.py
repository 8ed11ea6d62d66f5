"""What wakes the service: shards of ticks and history, the catalogue, timers, HTTP."""
