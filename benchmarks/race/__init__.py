"""mribatch against its peers on one machine: the same folder, interleaved, from images to a result file."""
