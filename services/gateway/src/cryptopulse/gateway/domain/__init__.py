"""The gateway's pure rules: protocol, subscriptions, conflation, limits, scopes, and the shapes that clients see."""
