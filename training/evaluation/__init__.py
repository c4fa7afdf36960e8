"""What a network is worth on images that it was not trained on."""
