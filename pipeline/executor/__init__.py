"""Parts of the listing to part files: in this process, or in several that each take one part after the other."""
