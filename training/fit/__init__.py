"""Fitting: the loop, the learning rate, batch statistics, the temperature."""
