"""From histories and a model to lists: pure code."""
