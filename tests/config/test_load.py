"""Where a setting's value comes from, and what a wrong one is told."""

from __future__ import annotations

import re
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest

from elias.config import load
from elias.config.check import EXAMPLES
from elias.config.default_file import DEFAULT_FILE
from elias.config.load import defaults, masked
from elias.domain.label import Label
from elias.errors import ConfigError


def configured(home: Path, text: str, **environment: str):
    (home / "config.toml").write_text(text)
    return load(environment={"ELIAS_HOME": str(home), **environment})


def test_without_a_file_every_value_is_its_default(tmp_path):
    config = load(environment={"ELIAS_HOME": str(tmp_path)})
    assert config.home == tmp_path
    assert config.node.port == 4141
    assert config.origins == {"home": "ELIAS_HOME"} | {name: "default" for name, _ in defaults()}


def test_a_flag_beats_the_environment_which_beats_the_file(tmp_path):
    (tmp_path / "config.toml").write_text('[node]\nname = "file"\nhost = "file"\nport = 1\n')
    environment = {"ELIAS_HOME": str(tmp_path), "ELIAS_NODE_HOST": "env", "ELIAS_NODE_PORT": "2"}
    config = load({"node.port": "3"}, environment)
    assert (config.node.name, config.node.host, config.node.port) == ("file", "env", 3)
    assert config.origins["node.name"] == "config.toml:2"
    assert config.origins["node.host"] == "ELIAS_NODE_HOST"
    assert config.origins["node.port"] == "--port"


def test_spans_labels_lists_and_truth_are_read_from_the_file_and_from_text(tmp_path):
    text = 'evaluators = ["doctests"]\n[training]\nlease = "2m"\nallow_code = true\n[capture]\nlabel = "secret"\n'
    config = configured(tmp_path, text, ELIAS_TRAINING_CHECKPOINT_EVERY="1.5h", ELIAS_GATE_NO_WORSE_IN_ANY_STAGE="no")
    assert config.evaluators == ("doctests",)
    assert config.training.lease == timedelta(minutes=2)
    assert config.training.allow_code is True
    assert config.capture.label is Label.SECRET
    assert config.training.checkpoint_every == timedelta(hours=1.5)
    assert config.gate.no_worse_in_any_stage is False


def test_a_backends_table_is_handed_on_as_it_was_written(tmp_path):
    config = configured(tmp_path, "[backends.local]\ngpus = [0, 1]\n")
    assert config.backends == {"local": {"gpus": [0, 1]}}
    assert config.origins["backends.local.gpus"] == "config.toml:2"


@pytest.mark.parametrize(
    ("text", "what", "fix"),
    [
        ("[node]\nprot = 1\n", "config.toml:2: there is no setting called 'node.prot'", "did you mean node.port?"),
        ("[noed]\nport = 1\n", "config.toml:1: there is no setting called 'noed'", "did you mean node?"),
        ("\nsurprise = 1\n", "config.toml:2: there is no setting called 'surprise'", "remove it"),
        ('[node]\nport = "4141"\n', "config.toml:2: node.port is '4141'", "write port = 4141"),
        ("[node]\nport = 70000\n", "config.toml:2: node.port is 70000", "write port = 4141"),
        ("[training]\nlease = 5\n", "config.toml:2: training.lease is 5: a span needs its unit", 'write lease = "30s"'),
        ('[capture]\nlabel = "hush"\n', "label is 'hush': a label is one of public", 'write label = "private"'),
        ('[store]\nurl = "mysql://x"\n', "does not begin with postgresql://", 'write url = "postgresql://'),
        ("[gate]\nlevel = nan\n", "gate.level is nan", "write level = 0.95"),
        ("[training]\nthreads = true\n", "training.threads is True", "write threads = 4"),
        ("node = 3\n", "'node' is a table", "[node]"),
        ("[backends]\nlocal = 3\n", "backends is not made of tables", "[backends.local]"),
        ("# one\n[node\n", "config.toml:2 is not TOML", "edit line 2"),
        ("[node]\nport = 1\n[node]\nname = 'x'\n", "config.toml:3 is not TOML", "the [node] that the file has already"),
        ('x = 1\nname = "unended\n', "config.toml:2 is not TOML", "edit line 2"),
    ],
)
def test_a_wrong_line_is_named_with_its_fix(tmp_path, text, what, fix):
    with pytest.raises(ConfigError) as caught:
        configured(tmp_path, text)
    assert what in caught.value.what
    assert fix in caught.value.fix


def test_a_file_that_is_not_utf8_is_named_with_its_line(tmp_path):
    (tmp_path / "config.toml").write_bytes(b'[node]\nname = "\xe9"\n')
    with pytest.raises(ConfigError, match=r"config\.toml:2 is not UTF-8"):
        load(environment={"ELIAS_HOME": str(tmp_path)})


def test_a_wrong_variable_and_a_wrong_flag_are_named(tmp_path):
    with pytest.raises(ConfigError) as caught:
        load(environment={"ELIAS_HOME": str(tmp_path), "ELIAS_NODE_PORT": "many"})
    assert caught.value.what.startswith("ELIAS_NODE_PORT: node.port is 'many'")
    assert caught.value.fix == "export ELIAS_NODE_PORT=4141"
    with pytest.raises(ConfigError) as caught:
        load({"node.port": "many"}, {"ELIAS_HOME": str(tmp_path)})
    assert caught.value.fix == "write --port 4141"


def test_a_variable_with_a_typo_in_a_known_table_is_refused_and_others_are_left_alone(tmp_path):
    load(environment={"ELIAS_HOME": str(tmp_path), "ELIAS_SOMETHING": "1"})
    with pytest.raises(ConfigError, match="ELIAS_NODE_PROT"):
        load(environment={"ELIAS_HOME": str(tmp_path), "ELIAS_NODE_PROT": "1"})


def test_the_default_file_changes_nothing_and_uncommented_it_is_valid_and_complete(tmp_path):
    as_written = configured(tmp_path, DEFAULT_FILE)
    assert {origin for name, origin in as_written.origins.items() if name != "home"} == {"default"}
    uncommented = configured(tmp_path, re.sub(r"(?m)^# (?=\w+ = )", "", DEFAULT_FILE))
    assert {origin.partition(":")[0] for name, origin in uncommented.origins.items() if name != "home"} == {
        "config.toml"
    }
    assert uncommented.gate == as_written.gate
    assert uncommented.training.lease == as_written.training.lease


def test_every_setting_has_an_example_that_is_accepted(tmp_path):
    assert EXAMPLES.keys() == {name for name, _ in defaults()}
    for name, example in EXAMPLES.items():
        section, _, key = name.rpartition(".")
        configured(tmp_path, (f"[{section}]\n" if section else "") + f"{key} = {example}\n")


def test_a_password_that_others_can_read_is_warned_about(tmp_path, caplog):
    (tmp_path / "config.toml").touch(0o644)
    text = '[store]\nurl = "postgresql://me:hush@host/elias"\n'
    configured(tmp_path, text)
    assert "chmod 600" in caplog.text
    assert "hush" not in caplog.text
    caplog.clear()
    (tmp_path / "config.toml").chmod(0o600)
    configured(tmp_path, text)
    assert caplog.text == ""


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://me:hush@host:5432/db", "postgresql://me:***@host:5432/db"),
        ("postgresql://me@host:5432/db", "postgresql://me@host:5432/db"),
        ("postgresql:///db?host=/run&password=hush", "postgresql:///db?host=/run&password=***"),
    ],
)
def test_a_masked_url_shows_no_password(url, shown):
    assert masked(url) == shown


def test_pydantic_is_not_imported_when_nothing_was_set(tmp_path):
    (tmp_path / "config.toml").write_text(DEFAULT_FILE)
    code = "import sys; from elias.config import load; load(); sys.exit('pydantic' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], env={"ELIAS_HOME": str(tmp_path)}, check=False).returncode == 0
