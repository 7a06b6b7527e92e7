"""MovieLens: the readers of its files, and a simulator of them with known truth."""
