"""Denoising neural reranking in JAX (Denoising Neural Reranker, arXiv 2509.18736)."""

__version__ = "0.1.0"
