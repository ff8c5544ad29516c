"""`elias generate`: one completion from the model in service."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from elias.cli.node_client import find_node
from elias.cli.output import Json, emit_json

app = typer.Typer(add_completion=False)


@app.command(help="One completion from the model in service.")
def generate(
    prompt: Annotated[str, typer.Argument(help="What it goes on from; - reads it from the input.")],
    max_tokens: Annotated[int, typer.Option(min=1, help="Of the completion.")] = 256,
    temperature: Annotated[float, typer.Option(min=0, max=2, help="0 is the likeliest word each time.")] = 0.2,
    json: Json = False,
) -> None:
    text = sys.stdin.read() if prompt == "-" else prompt
    question = {"model": "elias", "prompt": text, "max_tokens": max_tokens, "temperature": temperature}
    node = find_node()
    if json:
        emit_json(node.post("/v1/completions", question))
        return
    for event in node.stream("/v1/completions", {**question, "stream": True}):
        for choice in event.get("choices", ()):
            print(choice.get("text") or "", end="", flush=True)
    print()
