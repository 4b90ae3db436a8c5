"""Faults injected into real processes, real Kafka and real Redis: nothing lost, nothing counted twice."""
