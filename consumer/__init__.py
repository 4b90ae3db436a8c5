"""The service that turns purchase events into fresh lists."""
