"""HTTP: the node's API, and the gateway in front of the model in service."""
