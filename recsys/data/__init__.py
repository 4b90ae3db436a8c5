"""What a purchase, a history and a vocabulary are: pure code over bytes and arrays."""
