"""Technology: one port met by one library, vendor errors translated at the edge."""
