"""ELIAS: a node that turns your working sessions into a better code model, and keeps it in service."""

__version__ = "0.1.0"
