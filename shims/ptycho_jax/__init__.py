"""JAX lends its arrays, gradients, a training loop on optax and its file format to ptycho."""
