"""What operators ask for: imports, rebuilds, rollbacks, checks, comparisons."""
