"""Histories and a model in, lists out: pure code."""
