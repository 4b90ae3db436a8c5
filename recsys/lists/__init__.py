"""The live model, and users' lists from their states: computed, encoded, published."""
