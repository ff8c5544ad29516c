"""A port for a server that tests start in a process of its own."""

from __future__ import annotations

import itertools
import os
import socket

_FIRST, _COUNT = 20_000, 12_000
"""Below the ports that a system hands out by itself, so that nobody is given one between two looks."""
_next = itertools.count(os.getpid() * 100)


def free_port() -> int:
    """On loopback; another one at each call, and seldom one that another test process tries too."""
    for number in itertools.islice(_next, _COUNT):
        with socket.socket() as probe:
            port = _FIRST + number % _COUNT
            if probe.connect_ex(("127.0.0.1", port)) != 0:
                return port
    raise RuntimeError("no port is free")
