"""Programs that answer: each runs as a child process that ends when the node does."""
