"""One image file to one Parquet row: listing, decode, inference, output."""
