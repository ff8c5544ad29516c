"""The node's identity, and signatures with it."""
