"""An installed package as a wheel again, for a machine that lacks it."""

import subprocess
import sys
from pathlib import Path

import pytest

from elias.adapters.backends.own_wheel import own_wheel, runs_on_linux

HERE = pytest.mark.skipif(not runs_on_linux("pyrage"), reason="the pyrage installed here runs on this machine alone")
OPENS = """
import sys; sys.path.insert(0, sys.argv[1])
import pyrage
assert pyrage.__file__.startswith(sys.argv[1]), pyrage.__file__
key = pyrage.x25519.Identity.generate()
print(pyrage.decrypt(pyrage.encrypt(b"sealed and opened", [key.to_public()]), [key]).decode())
"""


@HERE
def test_the_pyrage_of_this_machine_installs_without_the_internet_where_there_is_none(tmp_path: Path) -> None:
    wheel = own_wheel("pyrage", tmp_path / "wheels")
    assert wheel is not None and "-abi3-manylinux" in wheel.name
    into = tmp_path / "elsewhere"
    pip = [sys.executable, "-m", "pip", "install", "--no-index", "--no-deps", "--quiet", "--target", str(into)]
    subprocess.run([*pip, str(wheel)], check=True, timeout=600)
    opened = subprocess.run([sys.executable, "-I", "-c", OPENS, str(into)], capture_output=True, text=True, timeout=600)
    assert opened.stdout == "sealed and opened\n", opened.stderr


@HERE
def test_it_is_the_same_each_time_and_made_once(tmp_path: Path) -> None:
    first, second = own_wheel("pyrage", tmp_path / "one"), own_wheel("pyrage", tmp_path / "two")
    assert first and second and first.read_bytes() == second.read_bytes()
    made_at = first.stat().st_mtime_ns
    assert own_wheel("pyrage", tmp_path / "one") == first and first.stat().st_mtime_ns == made_at


def installed(folder: Path, tag: str, record: str) -> None:
    """A package `odd` of one file, as pip leaves it."""
    (folder / "odd-1.0.dist-info").mkdir(parents=True)
    (folder / "odd.py").write_text("ODD = 1\n")
    (folder / "odd-1.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: odd\nVersion: 1.0\n")
    (folder / "odd-1.0.dist-info" / "WHEEL").write_text(f"Wheel-Version: 1.0\nTag: {tag}\n")
    (folder / "odd-1.0.dist-info" / "RECORD").write_text(f"{record}\nodd-1.0.dist-info/RECORD,,\n")


def test_a_file_that_was_changed_since_it_was_installed_is_not_sent_anywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path / "site")
    installed(tmp_path / "site", "py3-none-any", "odd.py,sha256=AAAA,8")
    assert runs_on_linux("odd") and own_wheel("odd", tmp_path) is None


@pytest.mark.parametrize("tag", ["cp311-abi3-macosx_11_0_arm64", "cp311-cp311-manylinux_2_17_x86_64"])
def test_what_is_built_for_another_system_or_one_python_alone_is_not_sent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tag: str
) -> None:
    monkeypatch.syspath_prepend(tmp_path / "site")
    installed(tmp_path / "site", tag, "odd.py,sha256=AAAA,8")
    assert not runs_on_linux("odd") and own_wheel("odd", tmp_path) is None


def test_what_is_not_installed_is_not_sent(tmp_path: Path) -> None:
    assert own_wheel("no-such-package", tmp_path) is None
