"""Kaggle's free GPU hours as a training place: a private dataset a run, a private kernel a segment."""

from elias.adapters.backends.kaggle.backend import KaggleBackend

__all__ = ["KaggleBackend"]
