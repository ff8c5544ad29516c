"""A port for a server that tests start in a process of its own."""

from __future__ import annotations

import itertools
import os
import socket

_FIRST, _COUNT = 20_000, 12_000
"""Below the ports that a system hands out by itself, so that nobody is given one between two looks."""
_next = itertools.count(os.getpid() * 100)


def free_port() -> int:
    """On loopback; another one at each call, and none that another process was given here and still lives."""
    for number in itertools.islice(_next, _COUNT):
        port = _FIRST + number % _COUNT
        with socket.socket() as probe:
            is_free = probe.connect_ex(("127.0.0.1", port)) != 0
        if is_free and _claim(port):
            return port
    raise RuntimeError("no port is free")


def _claim(port: int) -> bool:
    """Until this process ends: UDP's port of that number, which no server here wants, is bound and stays so."""
    claim = socket.socket(type=socket.SOCK_DGRAM)
    try:
        claim.bind(("127.0.0.1", port))
    except OSError:
        claim.close()
        return False
    claim.detach()
    return True
