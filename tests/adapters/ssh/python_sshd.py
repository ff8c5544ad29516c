"""An SSH server in Python (asyncssh), in a process of its own: real SFTP, and commands that really run in a shell.

python python_sshd.py PORT HOST_KEY AUTHORIZED_KEYS
"""

import asyncio
import sys
from contextlib import suppress
from pathlib import Path

import asyncssh


async def run(process: asyncssh.SSHServerProcess[bytes]) -> None:
    """As sshd does: the command in a shell's hands, with what the client sends and for the client what it prints.

    A client that is gone by then ends its own channel only: an exception here would end every other on its connection.
    """
    child = await asyncio.create_subprocess_shell(
        process.command or "exit 1",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
    )
    printed, said = await child.communicate(await process.stdin.read())
    with suppress(OSError, asyncssh.Error):
        process.stdout.write(printed)
        process.stderr.write(said)
        process.exit(child.returncode or 0)


async def main() -> None:
    port, host_key, authorized = sys.argv[1:]
    await asyncssh.listen(
        "127.0.0.1",
        int(port),
        server_host_keys=[host_key],
        authorized_client_keys=authorized if Path(authorized).read_text().strip() else (),
        process_factory=run,
        sftp_factory=True,
        encoding=None,
    )
    await asyncio.Event().wait()


asyncio.run(main())
