"""Any machine that can only reach out, as a training place; see `backend`."""

from elias.adapters.backends.worker.backend import WorkerBackend

__all__ = ["WorkerBackend"]
