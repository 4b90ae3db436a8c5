"""The service that archives purchases, rebuilds the model and refreshes every list."""
