"""Purchases, histories and vocabularies: pure code over bytes and arrays."""
