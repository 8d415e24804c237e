"""The network, the physics around it and the file of a trained model: pure functions, no framework."""
