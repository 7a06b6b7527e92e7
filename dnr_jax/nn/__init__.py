"""Blocks that models share: embeddings, attention, user state, score entries, the adapter."""
