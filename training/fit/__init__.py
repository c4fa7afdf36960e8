"""Fitting: the loop, augmentation, batch statistics, checkpoints, the temperature."""
