"""What a service says about itself: logs, metrics, traces and the state of what it depends on."""
