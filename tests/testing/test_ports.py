"""A port is one process's own until it ends, listened at or not."""

from __future__ import annotations

import itertools
import subprocess
import sys

from elias.testing import ports


def test_no_other_process_is_given_a_port_that_nobody_listens_at_yet(monkeypatch) -> None:
    given = ports.free_port()
    number = given - ports._FIRST
    told = f"import itertools; from elias.testing import ports; ports._next = itertools.count({number}); "
    other = subprocess.run(
        [sys.executable, "-c", told + "print(ports.free_port())"], capture_output=True, text=True, check=True
    )
    assert int(other.stdout) != given
    monkeypatch.setattr(ports, "_next", itertools.count(number))
    assert ports.free_port() != given
