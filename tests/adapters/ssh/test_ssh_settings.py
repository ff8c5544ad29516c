"""`[backends.ssh]`, and tables of another name with `kind = "ssh"`."""

from pathlib import Path
from typing import Any

import pytest

from elias.adapters.backends.ssh.settings import SshSettings
from elias.config.load import load
from elias.errors import ConfigError
from elias.wiring.backends import Backends, place_names


@pytest.mark.parametrize(
    ("raw", "named"),
    [
        ({}, "names no machine"),
        ({"host": "-oProxyCommand=sh"}, "host is"),
        ({"host": "lab; rm"}, "host is"),
        ({"host": "lab", "user": "-l"}, "user is"),
        ({"host": "lab", "python": "python3; reboot"}, "python is"),
        ({"host": "lab", "folder": 'a"b'}, "folder is"),
        ({"host": "lab", "port": 0}, "port is 0"),
        ({"host": "lab", "port": True}, "port is True"),
        ({"host": "lab", "trusted": "yes"}, "trusted is"),
        ({"host": "lab", "alone": "soon"}, "alone"),
        ({"host": "lab", "colour": "red"}, "no setting 'colour'"),
    ],
)
def test_a_setting_that_cannot_be_is_refused_by_name(raw: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        SshSettings.read(raw)


def test_several_machines_are_several_tables(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text(
        '[backends.lab]\nkind = "ssh"\nhost = "lab.example"\n\n[backends.attic]\nkind = "ssh"\nhost = "attic"\n'
    )
    config = load(environment={"ELIAS_HOME": str(tmp_path)})
    backends = Backends(config)
    assert {"lab", "attic", "local"} <= set(place_names(config)) and "ssh" not in place_names(config)
    made = [backends.make(name) for name in ("lab", "attic")]
    assert [(backend.name, backend.settings.host) for backend in made] == [("lab", "lab.example"), ("attic", "attic")]
    assert backends("lab")["lab"] is made[0]
