"""Pictures of a fit, of slices and of feature maps."""
