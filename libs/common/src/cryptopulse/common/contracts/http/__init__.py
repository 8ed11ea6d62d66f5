"""Request and response models of the internal HTTP, which the gateway publishes as its own: one module per owner."""
