"""Several processes and machines: what they gain, what they cost, what is lost when machines die, and their limits."""
