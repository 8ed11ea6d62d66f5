"""One package per venue: its WebSocket dialect, its REST paths and its wire shapes."""
