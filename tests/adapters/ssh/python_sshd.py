"""An SSH server in Python (asyncssh), in a process of its own: real SFTP, and commands that really run in a shell.

python python_sshd.py PORT HOST_KEY AUTHORIZED_KEYS
"""

import asyncio
import sys

import asyncssh


async def run(process: asyncssh.SSHServerProcess[bytes]) -> None:
    """As sshd does: the command in a login shell's hands, its streams those of the channel."""
    child = await asyncio.create_subprocess_shell(
        process.command or "exit 1",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
    )
    await process.redirect(stdin=child.stdin, stdout=child.stdout, stderr=child.stderr)
    code = await child.wait()
    await process.stdout.drain()
    process.exit(code)


async def main() -> None:
    port, host_key, authorized = sys.argv[1:]
    await asyncssh.listen(
        "127.0.0.1",
        int(port),
        server_host_keys=[host_key],
        authorized_client_keys=authorized,
        process_factory=run,
        sftp_factory=True,
        encoding=None,
    )
    await asyncio.Event().wait()


asyncio.run(main())
