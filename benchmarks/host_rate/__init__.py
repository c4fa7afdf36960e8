"""How many images a second the host alone can bring to a GPU and take from it."""
