"""All that only a GPU can tell, asked once, in order: for the first hour on a new machine."""
