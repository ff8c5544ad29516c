"""A machine that the user can log into, as a training place; see `backend`."""

from elias.adapters.backends.ssh.backend import SshBackend

__all__ = ["SshBackend"]
