"""Programs around the services: the local stack, the venue simulator, benchmarks and documents."""
