"""The simulator's own small HTTP and WebSocket server, with every byte under control so that it can misbehave."""
