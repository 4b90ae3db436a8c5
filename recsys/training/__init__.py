"""From events to a model: ALS, weights of demand and habits, the search for parameters."""
