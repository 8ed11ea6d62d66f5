"""The seam to the message bus: protocols, the RabbitMQ and memory implementations, topology, codec and retries."""
