"""The stages of dvc.yaml: read parameters, call the library, write outputs."""

import os

# GNU OpenMP's threads spin for milliseconds before they sleep, which makes a step several times
# slower as soon as another process wants the cores. Read once, when torch is loaded.
os.environ.setdefault("GOMP_SPINCOUNT", "10000")

# Arrow's own allocator breaks the heap into pieces, where the C library's memory is given back
# between batches: the peak of embedding grew with the number of images. Read once, as Arrow is loaded.
os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")
