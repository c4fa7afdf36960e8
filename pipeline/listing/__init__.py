"""Which files a run is about: the walk over the inputs, their labels, listing.parquet."""
