"""The model and its computations: confidences, fold-in, exact top-N, boosts."""
