"""Ways to measure a candidate beside its rivals; each is an `elias.evaluators` entry point."""
