"""Prepared images for PyTorch."""
