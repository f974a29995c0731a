"""The Inter-Component Protocol: messages, their bytes, tensors, and the two planes that carry them."""
