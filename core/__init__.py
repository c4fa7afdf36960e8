"""What every other package shares: errors, the model bundle and its contract, atomic files; stdlib and NumPy only."""
