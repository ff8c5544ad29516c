"""Configuration: defaults < file < environment < flags, resolved once into one frozen `Config`."""

from elias.config.load import load
from elias.config.schema import Config

__all__ = ["Config", "load"]
