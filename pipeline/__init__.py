"""One image file to one Parquet row: discover, probe, decode, classify, write."""
