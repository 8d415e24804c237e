"""TensorFlow lends its arrays, gradients, Keras training loop and file format to ptycho."""
