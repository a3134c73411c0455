"""params.yaml as frozen, typed objects: unknown keys, wrong types and missing keys are refused."""

from mdprop.config.loading import load_params
from mdprop.config.schema import Params

__all__ = ["Params", "load_params"]
