"""What a node needs from the world: Protocols, and the small values that cross them. No code that does anything."""
