"""The benchmarks of metric learning, in the layouts in which they are published."""
