"""One module per image format: how to walk its container and prove it whole. `decode.probe` picks the walk.

A walk takes an `Image` of `container`, fills in size, bits and flags as it meets them, and raises `Refused` where the
image is not ok. A read past the end may leave the walk as struct.error or IndexError: the file is truncated. Where a
format carries EXIF, its `exif_blocks` yields the blocks. A new format is a module here and its line in the probe.
"""
