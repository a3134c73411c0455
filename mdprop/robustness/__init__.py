"""The fixed adversary: adversarial test sets, and how a model fares under them."""
