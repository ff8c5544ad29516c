"""Bad input, as a person meets it: one error with its fix and exit code; the good part kept, nothing half-written."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from elias.cli.shell import run_command

GOOD = '{"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]}\n'
HIDING = """
import os, sys
class Hidden:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == os.environ["HIDDEN"]:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Hidden())
"""
FILES = {
    "broken.jsonl": b"{broken\n",
    "half.jsonl": GOOD.encode() + b"{broken\n",
    "latin.jsonl": GOOD.replace("q", "caf\u00e9").encode("latin-1"),
    "latin.py": 'x = "caf\u00e9"\n'.encode("latin-1"),
    "empty.jsonl": b"",
    "table.csv": b"a,b\n",
    "two.toml": b'[schedule.good]\nat = "02:00"\n[schedule.bad]\nat = "02:00"\nstages = [1, 5]\n',
    "broken.py": b"def f(:\n",
    "code.py": "".join(f'def f{n}(x):\n    """Add {n}."""\n    return x + {n}\n' for n in range(8)).encode(),
}


@dataclass(frozen=True)
class Bad:
    line: str
    code: int
    said: str
    fix: str


TABLE = [
    Bad("capture chat broken.jsonl", 2, "broken.jsonl:1: not JSON", "one a line|a line"),
    Bad("capture chat latin.jsonl", 2, "latin.jsonl:1: not UTF-8", "iconv"),
    Bad("capture chat empty.jsonl", 2, "is empty", "messages"),
    Bad("capture chat absent.jsonl", 2, "is not there", ".jsonl"),
    Bad("capture code latin.py", 2, "not Python", "mend it"),
    Bad("capture code broken.py", 2, "broken.py:1: not Python", "mend it"),
    Bad("capture code absent", 2, "is not there", "path"),
    Bad("capture git .", 2, "not a git repository", "git clone"),
    Bad("corpus build", 2, "no session to build a corpus of", "elias capture"),
    Bad("corpus build --heldout-share 2", 2, "2.0", "between 0 and 1"),
    Bad("train --base tiny", 3, "there is no corpus yet", "elias corpus build"),
    Bad("train --data empty.jsonl --base tiny", 2, "is empty", "messages"),
    Bad("train --data latin.jsonl --base tiny", 2, "not UTF-8", "iconv"),
    Bad("train --data absent --base tiny", 2, "is not there", "git repository"),
    Bad("train --data table.csv --base tiny", 2, "none of the things to train on", ".jsonl"),
    Bad("train --data code.py --base ./absent", 3, "no base model at ./absent", "config.json"),
    Bad("train --data code.py --base .", 2, "no .safetensors file", "starter"),
    Bad("train --data code.py --base table.csv", 2, "table.csv is no model", "starter"),
    Bad("train --data code.py --base absent.gguf", 3, "no base model at absent.gguf", "starter"),
    Bad("train --data code.py --base tiny --strategy moon", 3, "'moon'", "use one of"),
    Bad("train --data code.py --base tiny --strategy example", 3, "'example'", "use one of"),
    Bad("schedule add x --at 02:00 --strategy moon", 3, "'moon'", "use one of"),
    Bad("schedule add x --at 02:00 --base /nonexist", 3, "no base model at /nonexist", "config.json"),
    Bad("schedule add x --at 02:00 --base nonsense", 3, "no base model called 'nonsense'", "config.json"),
    Bad("schedule add x --at 02:00 --source bogus", 3, "no source is called 'bogus'", "git"),
    Bad("schedule add x --at 02:00 --stage 9", 2, "there is no stage 9", "1, 2, 3 or 4"),
    Bad("schedule add --file two.toml", 2, "schedule bad: there is no stage 5", "1, 2, 3 or 4"),
    Bad("session show abc", 3, "abc", "elias session list"),
    Bad("model show abc", 3, "abc", "elias model list"),
    Bad("model verify ./absent", 3, "absent", ""),
    Bad("run show abc", 3, "abc", "elias run list"),
    Bad("export latest --out there", 3, "no model yet", "elias train"),
    Bad("chat hi", 2, "no node is up", "elias up"),
]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, data in FILES.items():
        (tmp_path / name).write_bytes(data)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ELIAS_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    return tmp_path / "home"


def elias(line: str) -> int:
    words = line.split()
    return run_command("elias", words[0], words[0], words[1:])


def process(line: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from elias.cli import main; main()", *line.split()]
    return subprocess.run(
        command, env={**os.environ, **environment}, capture_output=True, text=True, timeout=900, check=False
    )


def check_told(err: str, said: str, fix: str = "") -> None:
    """One error, in words, with its fix."""
    assert "Traceback" not in err and "[Errno" not in err
    lines = err.splitlines()
    errors = [n for n, line in enumerate(lines) if line.startswith("error: ")]
    assert len(errors) == 1, err
    assert said in lines[errors[0]], err
    fixes = [line for line in lines[errors[0] :] if line.startswith("  fix: ")]
    assert len(fixes) == 1 and any(word in fixes[0] for word in fix.split("|")), err


def half_written(home: Path) -> list[Path]:
    return [path for path in home.rglob("*") if path.name.endswith(".part")]


@pytest.mark.parametrize("bad", TABLE, ids=lambda bad: bad.line)
def test_bad_input_has_one_error_with_its_fix_and_code(bad: Bad, home: Path, capsys) -> None:
    code = elias(bad.line)
    told = capsys.readouterr()
    assert code == bad.code, told.err
    check_told(told.err, bad.said, bad.fix)
    assert told.out == "" and half_written(home) == [] and not list(home.glob("home/schedules/*"))


def test_of_a_file_with_a_broken_line_the_good_part_is_kept(capsys) -> None:
    assert elias("capture chat half.jsonl") == 0
    told = capsys.readouterr()
    assert "1 new chat session" in told.out and "1 skipped" in told.out
    assert "skipped half.jsonl:2: not JSON" in told.err and "fix:" in told.err
    assert elias("session list --json") == 0
    assert '"source": "chat"' in capsys.readouterr().out


HUGE = [
    ("plan --by 9999-12-31", "hundred years away"),
    ("plan --by 10000000d", "longer than a hundred years"),
    ("plan --by 99999999999999h", "longer than a hundred years"),
    ("plan --max-minutes 1e300", "longer than a hundred years"),
    ("plan --max-minutes inf", "longer than a hundred years"),
    ("plan --epochs 1e300", "--epochs"),
    ("plan --epochs 90000000", "more than 100,000,000 steps"),
    ("plan --steps 99999999999999999999999", "--steps"),
    ("plan --segment-steps 99999999999999999999999", "--segment-steps"),
    ("plan --budget 1e999999999", "more than is counted"),
    ("offers --timeout 1e300", "longer than a hundred years"),
    ("offers --accumulation 99999999999999999999999", "--accumulation"),
    ("train --checkpoint-minutes 1e300", "longer than a hundred years"),
    ("train --learning-rate inf", "--learning-rate"),
    ("train --seed 99999999999999999999999", "--seed"),
    ("kaggle by-hand latest --out there --max-minutes 1e300", "longer than a hundred years"),
    ("worker token --valid 99999999999999h", "longer than a hundred years"),
    ("worker token --valid 3000000d", "longer than a hundred years"),
    ("run prune --older 99999999999999h", "longer than a hundred years"),
    ("session list --limit 99999999999999999999999", "--limit"),
    ("budget set day 1e999999999", "more than is counted"),
    ("schedule add x --at 02:00 --hours 99999999999999h", "hours is"),
    ("schedule add x --at 02:00 --steps 99999999999999999999999", "steps is"),
    ("schedule add x --at 02:00 --budget 1e999999999", "budget is"),
]


@pytest.mark.parametrize(("line", "said"), HUGE, ids=[line for line, _ in HUGE])
def test_a_number_beyond_all_bounds_is_one_error_with_its_fix(line: str, said: str, capsys) -> None:
    assert elias("capture code code.py") == elias("corpus build --heldout-share 0.4") == 0
    capsys.readouterr()
    assert elias(f"{line} --base tiny" if line.startswith(("plan", "offers", "train")) else line) == 2
    check_told(capsys.readouterr().err, said)


@pytest.mark.parametrize("label", ["secret", "private"])
def test_a_label_that_forbids_the_strategy_refuses_it_and_names_the_label(label: str, home: Path, capsys) -> None:
    (home / "config.toml").parent.mkdir()
    (home / "config.toml").write_text(f'[capture]\nlabel = "{label}"\n')
    assert elias("capture code code.py") == elias("corpus build --heldout-share 0.4") == 0
    capsys.readouterr()
    code = elias("train --base tiny --steps 1 --strategy kaggle")
    told = capsys.readouterr().err
    assert code in (2, 4), told  # without Kaggle's credentials nothing is sent either
    assert "Traceback" not in told and "fix:" in told


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("[traning]\nbase = 'x'\n", "config.toml:1: there is no setting called 'traning'"),
        ("[node]\nport = 'x'\n", "config.toml:2: node.port is 'x'"),
        ("[node\n", "config.toml:1 is not TOML"),
        ("[capture]\nlabel = 'mine'\n", "config.toml:2"),
        ("[training]\nlease = '99999999999999h'\n", "config.toml:2: training.lease is '99999999999999h'"),
        ("[budget]\nday = '1e999999999usd'\n", "config.toml:2: budget.day is '1e999999999usd'"),
    ],
)
def test_a_slip_in_the_configuration_names_its_line(written: str, said: str, home: Path, capsys) -> None:
    home.mkdir()
    (home / "config.toml").write_text(written)
    assert elias("session list") == 2
    check_told(capsys.readouterr().err, said)
    assert [path.name for path in home.iterdir()] == ["config.toml"]


@pytest.mark.parametrize("line", ["session list", "run list", "model list", "corpus list", "train --base tiny"])
def test_a_damaged_database_says_how_to_go_on_and_is_left_as_it_is(line: str, home: Path, capsys) -> None:
    home.mkdir()
    (home / "elias.db").write_bytes(b"no database at all" * 500)
    assert elias(line) == 5
    check_told(capsys.readouterr().err, "elias.db is damaged", "move it aside")
    assert (home / "elias.db").read_bytes() == b"no database at all" * 500


@pytest.mark.parametrize("line", ["init", "session list", "up"])
def test_a_home_that_cannot_be_is_said_in_words(line: str, tmp_path: Path) -> None:
    done = process(line, ELIAS_HOME=str(tmp_path / "code.py"))
    assert done.returncode in (2, 5)
    check_told(done.stderr, "code.py", "ELIAS_HOME")


@pytest.mark.parametrize(
    ("package", "line"),
    [
        ("sqlalchemy", "session list"),
        ("dbos", "run list"),
        ("cryptography", "init"),
        ("rich", "doctor"),
        ("psutil", "doctor"),
        ("pydantic", "config show"),
    ],
)
def test_a_missing_package_is_named_with_what_to_install(package: str, line: str, tmp_path: Path) -> None:
    (tmp_path / "shim").mkdir()
    (tmp_path / "shim" / "sitecustomize.py").write_text(HIDING)
    (tmp_path / "home").mkdir()
    done = process(line, PYTHONPATH=str(tmp_path / "shim"), HIDDEN=package)
    assert done.returncode == 2, done.stderr
    check_told(done.stderr, f"'{package}'", "pip install")


def test_a_port_in_use_is_named_with_another_one() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = process(f"up --port {port}")
    assert done.returncode == 2
    check_told(done.stderr, f"port {port} is in use", "elias up --port")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Of one MiB; skipped visibly where nobody may mount one."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "elias-test", str(place)], capture_output=True, text=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"no disk of one MiB can be mounted here: {mounted.stderr.strip()}")
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)


def test_a_full_disk_stops_a_capture_whole_and_what_was_there_stays(small_disk: Path, tmp_path: Path) -> None:
    home = str(small_disk / "home")
    assert process("capture chat half.jsonl", ELIAS_HOME=home).returncode == 0
    many = (GOOD.replace('"q"', f'"{n} {"long " * 400}"') for n in range(600))
    (tmp_path / "many.jsonl").write_text("".join(many))
    full = process("capture chat many.jsonl", ELIAS_HOME=home)
    assert full.returncode == 5, full.stdout
    check_told(full.stderr, "is full", "make room|free some space")
    left = process("session list --json", ELIAS_HOME=home)
    assert left.returncode == 0 and left.stdout.count('"source": "chat"') == 1, left.stderr


def test_a_disk_that_fills_while_the_config_is_made_leaves_nothing_half_written(small_disk: Path) -> None:
    filler = os.open(small_disk / "filler", os.O_WRONLY | os.O_CREAT)
    with pytest.raises(OSError, match="No space left"):
        while True:
            os.write(filler, b"x" * 4096)
    os.close(filler)
    done = process("init", ELIAS_HOME=str(small_disk / "home"))
    assert done.returncode in (2, 5)
    check_told(done.stderr, ["No space left", "full"][0] if "No space left" in done.stderr else "full")
    assert half_written(small_disk) == []
