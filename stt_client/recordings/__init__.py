"""The caller's recordings, of any length in bounded memory: recognizing, reading, cutting, encoding, merging."""
