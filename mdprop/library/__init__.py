"""Training and measuring on one's own `DataLoader`s: `mdprop.fit` and `mdprop.evaluate`."""
