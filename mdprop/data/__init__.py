"""Readers of each data set's layout, class-disjoint splits, the packed image store, transforms, samplers."""
