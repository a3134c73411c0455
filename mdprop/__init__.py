"""Deep metric learning with multiple batch norms and multi-targeted adversarial examples."""

__version__ = "0.1.0"
