"""Ways to run a network, one file for each: prepared images in, logits out."""
