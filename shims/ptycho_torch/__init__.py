"""PyTorch shim: arrays, gradients, the Lightning training loop and the file format; no physics."""
