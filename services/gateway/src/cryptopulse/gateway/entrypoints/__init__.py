"""What wakes the gateway: HTTP requests, sockets, messages of the bus."""
