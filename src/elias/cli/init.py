"""`elias init`: makes this machine a node."""

from __future__ import annotations

from typing import Annotated

import typer

from elias.cli.output import Json, emit_json, say

app = typer.Typer(add_completion=False)


@app.command()
def init(
    profile: Annotated[
        str | None, typer.Option(help="Presets to begin with: individual, small-business or research.")
    ] = None,
    json: Json = False,
) -> None:
    """Make this machine a node: a home, an identity, a configuration. Safe to type again."""
    from elias.config import load
    from elias.config.file import CONFIG_FILE
    from elias.errors import Refused
    from elias.wiring.attest import IDENTITY_FOLDER, make_node, node_signer

    config = load() if profile is None else load({"profile": profile})
    made = make_node(config)
    if profile is not None and config.home / CONFIG_FILE not in made and load().profile != profile:
        file = config.home / CONFIG_FILE
        raise Refused(f"{file} is there already, and was left alone", fix=f'write at its top: profile = "{profile}"')
    key_id = node_signer(config).key_id()
    if json:
        emit_json({"home": config.home, "made": made, "key_id": key_id})
        return
    if not made:
        print(f"{config.home} is a node already; nothing was changed\n  key  {key_id}")
        return
    print(f"{config.home} is a node")
    for path in made:
        print(f"  made {path}")
    print(f"  key  {key_id}")
    if config.home / IDENTITY_FOLDER in made:
        say(f"Keep a copy of {config.home / IDENTITY_FOLDER / 'seed'} in a safe place: it cannot be made again.")
    say("Next: elias capture code PATH")
