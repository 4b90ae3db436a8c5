"""What every process needs, whatever it does: threads, compiled loops, progress, logs, metrics, clock."""
