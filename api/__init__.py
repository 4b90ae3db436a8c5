"""The HTTP API: the lists in Redis for apps that do not speak Redis."""
