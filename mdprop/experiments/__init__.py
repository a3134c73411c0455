"""Experiments side by side: what DVC keeps of each, compared on the queries and seeds that they share.

`repository` reads, `comparison` compares, the others show.
"""
