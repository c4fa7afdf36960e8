"""Files of whole studies, DICOM and NIfTI: what their headers say. Pixels are for `mribatch.pipeline.decode`."""
