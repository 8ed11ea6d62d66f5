"""What wakes the service: HTTP, prices from the bus, timers."""
