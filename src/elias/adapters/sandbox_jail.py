"""Runs inside a fresh interpreter (`python -I -S sandbox_jail.py`): builds the jail, then becomes the program in it.

Standard input holds `Order` as JSON. Whatever goes wrong before the program begins is said on standard error, with
exit code 97; the program itself has no standard error, so nothing it does can look like that.

    starter      stays outside, writes the id maps, waits
    └─ builder   unshares, mounts the new root
       └─ init   process 1 of the new process namespace: when it ends, the kernel kills everything below it
          └─ the program, with no capability left

Source: user_namespaces(7), pid_namespaces(7), pivot_root(2), setrlimit(2).
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import resource
import signal
import sys
from pathlib import Path
from typing import ClassVar, TypedDict

SETUP_FAILED = 97
NOBODY = 65534
WORK = "/elias-jail"
"""The only folder it can write to; named so that no shown path lies below it."""

CLONE_NEWNS, CLONE_NEWUTS, CLONE_NEWIPC, CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNET = (
    0x00020000,
    0x04000000,
    0x08000000,
    0x10000000,
    0x20000000,
    0x40000000,
)
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REMOUNT, MS_BIND, MS_REC, MS_PRIVATE = (
    1,
    2,
    4,
    8,
    32,
    4096,
    16384,
    1 << 18,
)
MNT_DETACH = 2
PR_SET_PDEATHSIG, PR_SET_NO_NEW_PRIVS, SYS_PIVOT_ROOT = 1, 38, {"x86_64": 155, "aarch64": 41}


class Order(TypedDict):
    program: str
    root: str
    """An empty folder to build the new root on; what is mounted there is seen in the jail alone."""
    python: str
    show: list[str]
    """Files and folders of the interpreter, shown read-only at their own path."""
    cpu_seconds: int
    memory_bytes: int
    """Address space of one process."""
    disk_bytes: int
    processes: int
    open_files: int


def main() -> int:
    order: Order = json.load(sys.stdin)
    unshared, mapped = os.pipe(), os.pipe()
    builder = os.fork()
    if builder == 0:
        os._exit(_build(order, unshared[1], mapped[0]))
    die_with_parent()
    os.close(unshared[1])
    if os.read(unshared[0], 1) == b"u":
        write_id_maps(builder)
        os.write(mapped[1], b"m")
    return exit_code(builder)


def write_id_maps(builder: int) -> None:
    """For root: root builds, `nobody` runs. Anyone else may map one id alone: `nobody` inside is them outside."""
    folder = Path(f"/proc/{builder}")
    uid, gid = os.getuid(), os.getgid()
    try:
        if uid != 0:
            raise PermissionError
        (folder / "uid_map").write_text(f"0 0 1\n{NOBODY} {NOBODY} 1\n")
        (folder / "gid_map").write_text(f"0 0 1\n{NOBODY} {NOBODY} 1\n")
    except PermissionError:
        (folder / "setgroups").write_text("deny")
        (folder / "uid_map").write_text(f"{NOBODY} {uid} 1\n")
        (folder / "gid_map").write_text(f"{NOBODY} {gid} 1\n")


def exit_code(process: int) -> int:
    _, status = os.waitpid(process, 0)
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


def die_with_parent() -> None:
    """Called again after each change of id, which takes it back."""
    prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def _build(order: Order, unshared: int, mapped: int) -> int:
    with _told("take namespaces of its own"):
        check(libc.unshare(CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS))
    die_with_parent()
    os.write(unshared, b"u")
    os.close(unshared)
    with _told("map its user"):
        if os.read(mapped, 1) != b"m":
            raise OSError("the id maps could not be written")
    with _told("build its own root"):
        forbid_more_namespaces()
        make_root(order)
    init = os.fork()
    if init == 0:
        os._exit(_init(order))
    return exit_code(init)


def forbid_more_namespaces() -> None:
    """Inside a namespace of its own a program has every capability again, and more of the kernel within reach."""
    with contextlib.suppress(OSError):  # where /proc/sys is read-only, as in many containers, this wall is missing
        Path("/proc/sys/user/max_user_namespaces").write_text("0")


def make_root(order: Order) -> None:
    """A small root in memory: the interpreter read-only, `WORK` to write in; no home, no /proc, no /tmp."""
    root = order["root"]
    mount("none", "/", None, MS_REC | MS_PRIVATE)
    mount("tmpfs", root, "tmpfs", MS_NOSUID | MS_NODEV, "size=1m,mode=755")
    for shown in [*order["show"], "/dev/null", "/dev/urandom"]:
        show(Path(shown), Path(root + shown))
    work = Path(root + WORK)
    work.mkdir()
    mount("tmpfs", str(work), "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, f"size={order['disk_bytes']},mode=777")
    (work / "program.py").write_text(order["program"], encoding="utf-8", errors="surrogatepass")
    (work / "program.py").chmod(0o644)
    Path(root, "old").mkdir()
    os.chdir(root)
    check(libc.syscall(SYS_PIVOT_ROOT[os.uname().machine], b".", b"old"))
    os.chdir("/")
    check(libc.umount2(b"/old", MNT_DETACH))
    Path("/old").rmdir()
    mount("none", "/", None, MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID | MS_NODEV)


def show(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_symlink():
        target.symlink_to(source.readlink())
        return
    if source.is_dir():
        target.mkdir(exist_ok=True)
    else:
        target.touch()
    mount(str(source), str(target), None, MS_BIND | MS_REC)
    # The kernel lets nobody take away a flag that the mount has outside: ask for the flags it has, and read-only.
    mount("none", str(target), None, MS_REMOUNT | MS_BIND | MS_RDONLY | flags_of(target))


def flags_of(path: Path) -> int:
    have = os.statvfs(path).f_flag
    named = {os.ST_NOSUID: MS_NOSUID, os.ST_NODEV: MS_NODEV, os.ST_NOEXEC: MS_NOEXEC, os.ST_NOATIME: 1024}
    named |= {os.ST_NODIRATIME: 2048, os.ST_RELATIME: 1 << 21}
    return sum(flag for seen, flag in named.items() if have & seen)


def _init(order: Order) -> int:
    with _told("give up its rights"):
        os.chdir(WORK)
        become_nobody()
        prctl(PR_SET_NO_NEW_PRIVS, 1)
    program = os.fork()
    if program == 0:
        with _told("start the program"):
            limit(order)
            _told.where = os.dup(2)  # closed by the exec: whatever is said there was said by the jail
            null = os.open("/dev/null", os.O_RDWR)
            os.dup2(null, 0)
            os.dup2(null, 2)
            python = order["python"]
            os.execve(python, [python, "-I", "-S", "-B", f"{WORK}/program.py"], {"PATH": "", "HOME": WORK})
    os.close(1)
    return exit_code(program)


def become_nobody() -> None:
    """Of no effect where the map has `nobody` alone. The exec that follows drops every capability."""
    if os.getuid() != NOBODY:
        os.setgroups([])
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)
    die_with_parent()


def limit(order: Order) -> None:
    limits = {
        resource.RLIMIT_CPU: order["cpu_seconds"],
        resource.RLIMIT_AS: order["memory_bytes"],
        resource.RLIMIT_FSIZE: order["disk_bytes"],
        resource.RLIMIT_NOFILE: order["open_files"],
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_NPROC: order["processes"],
    }
    for kind, most in limits.items():
        hard = resource.getrlimit(kind)[1]
        most = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(kind, (most, most))


class _told:
    """Says on standard error which part of the set-up failed, and leaves."""

    where: ClassVar[int] = 2

    def __init__(self, what: str) -> None:
        self.what = what

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if error is not None:
            os.write(self.where, f"the sandbox could not {self.what}: {error}".encode())
            os._exit(SETUP_FAILED)


libc = ctypes.CDLL(None, use_errno=True)


def check(answer: int) -> None:
    if answer != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def prctl(option: int, value: int) -> None:
    check(libc.prctl(option, ctypes.c_ulong(value), ctypes.c_ulong(0), ctypes.c_ulong(0), ctypes.c_ulong(0)))


def mount(source: str, target: str, kind: str | None, flags: int, data: str = "") -> None:
    encoded = kind.encode() if kind else None
    try:
        check(libc.mount(source.encode(), os.fsencode(target), encoded, ctypes.c_ulong(flags), data.encode() or None))
    except OSError as error:
        raise OSError(error.errno, f"{error.strerror} (mounting {target})") from error


if __name__ == "__main__":
    sys.exit(main())
