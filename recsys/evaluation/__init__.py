"""How good lists are: a split by time, metrics, baselines, and the gate's record."""
