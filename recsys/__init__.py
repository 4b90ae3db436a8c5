"""The library: what a purchase, a history, a model and a list are, and how they reach Kafka, Redis and disk.

It imports none of its rooms, so that a program that wants one of them, `recsys.client` above all, loads no other.
"""

from __future__ import annotations

from importlib.metadata import version

__version__ = version("recsys")
