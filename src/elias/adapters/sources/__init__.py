"""Where sessions come from: one module a source, each behind an `elias.sources` entry point."""
