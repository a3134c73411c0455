"""The stages of dvc.yaml: read parameters, call the library, write outputs."""

import os

# Threads that spin while they wait make a step ten times slower as soon as anything else runs.
# OpenMP reads this once, when torch is loaded.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
