"""Programs that time the library and print ratios; run as python -m benchmarks.<name>."""

from mdprop.runtime.entrance import tune_libraries

tune_libraries()  # as in a stage, before torch is loaded
