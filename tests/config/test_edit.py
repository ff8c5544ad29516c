"""A command that sets values leaves everything else in the file as it was."""

import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from elias.config.edit import set_values
from elias.errors import ConfigError

TABLE = "backends.sagemaker"


def write(home: Path, text: str) -> Path:
    path = home / "config.toml"
    path.write_text(text)
    return path


def test_values_come_into_their_table_and_comments_stay(tmp_path: Path):
    path = write(tmp_path, '# mine\n[backends.sagemaker] # aws\nspot = "never" # dear\nregion = "x" # here\n\n[node]\n')
    set_values(tmp_path, TABLE, {"region": "us-east-1", "bucket": "b"})
    assert path.read_text() == (
        '# mine\n[backends.sagemaker] # aws\nbucket = "b"\nspot = "never" # dear\n'
        'region = "us-east-1"  # here\n\n[node]\n'
    )


def test_a_table_that_is_not_there_is_added_at_the_end(tmp_path: Path):
    path = write(tmp_path, "[node]\nport = 4141")
    set_values(tmp_path, TABLE, {"bucket": "b", "role": "r"})
    assert path.read_text() == '[node]\nport = 4141\n\n[backends.sagemaker]\nbucket = "b"\nrole = "r"\n'


def test_a_file_that_is_not_there_is_made_for_its_user_alone(tmp_path: Path):
    path = set_values(tmp_path / "new", TABLE, {"bucket": "b"})
    assert path.stat().st_mode & 0o777 == 0o600


def test_the_file_stays_as_readable_as_it_was(tmp_path: Path):
    path = write(tmp_path, "")
    path.chmod(0o640)
    set_values(tmp_path, TABLE, {"bucket": "b"})
    assert path.stat().st_mode & 0o777 == 0o640


def test_setting_the_same_twice_changes_nothing(tmp_path: Path):
    path = set_values(tmp_path, TABLE, {"bucket": "b"})
    before = path.stat()
    set_values(tmp_path, TABLE, {"bucket": "b"})
    assert (path.stat().st_ino, path.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


@pytest.mark.parametrize(
    "text", ['backends = {sagemaker = {spot = "never"}}\n', '[backends]\nsagemaker.spot = "never"\n', "broken = [\n"]
)
def test_a_table_written_in_another_way_is_left_alone(tmp_path: Path, text: str):
    path = write(tmp_path, text)
    with pytest.raises(ConfigError) as refused:
        set_values(tmp_path, TABLE, {"bucket": "b"})
    assert path.read_text() == text
    assert 'bucket = "b"' in refused.value.fix


@given(value=st.text(st.characters(codec="utf-8", exclude_categories=("Cs", "Cc")), max_size=40))
def test_any_text_comes_back_as_it_was_set(tmp_path_factory: pytest.TempPathFactory, value: str):
    home = tmp_path_factory.mktemp("home")
    path = set_values(home, TABLE, {"bucket": value})
    assert tomllib.loads(path.read_text())["backends"]["sagemaker"]["bucket"] == value
