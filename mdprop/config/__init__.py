"""params.yaml as frozen, typed objects: unknown keys, wrong types and missing keys are refused."""

from mdprop.config.loading import declared_params, load_params
from mdprop.config.schema import Params

__all__ = ["Params", "declared_params", "load_params"]
