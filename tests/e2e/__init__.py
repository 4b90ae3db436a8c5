"""Tests of the whole system, from event to list."""
