"""Verbs. They know the domain and the ports, and are handed everything else."""
