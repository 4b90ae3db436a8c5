"""What a model is and what it computes: confidences, the user half-step, exact top-N, boosts."""
