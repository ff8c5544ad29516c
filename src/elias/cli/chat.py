"""`elias chat`: one answer, or a conversation, with the model in service."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer

from elias.cli.node_client import NodeClient, find_node
from elias.cli.output import Json, emit_json, say
from elias.errors import EliasError

app = typer.Typer(add_completion=False)

_PATH = "/v1/chat/completions"
_LEAVE = ("/exit", "/quit")


@app.command(help="Talk to the model in service.")
def chat(
    prompt: Annotated[str | None, typer.Argument(help="One question; without it, a conversation.")] = None,
    system: Annotated[str | None, typer.Option(help="What the model is told first.")] = None,
    max_tokens: Annotated[int, typer.Option(min=1, help="Of an answer.")] = 512,
    temperature: Annotated[float, typer.Option(min=0, max=2, help="0 is the likeliest word each time.")] = 0.2,
    json: Json = False,
) -> None:
    node = find_node()
    messages = [{"role": "system", "content": system}] if system else []
    question = {"model": "elias", "max_tokens": max_tokens, "temperature": temperature}
    if prompt is None and not json:
        _converse(node, question, messages)
        return
    messages.append({"role": "user", "content": sys.stdin.read() if prompt in (None, "-") else str(prompt)})
    if json:
        emit_json(node.post(_PATH, {**question, "messages": messages}))
        return
    _answer(node, {**question, "messages": messages})


def _converse(node: NodeClient, question: dict[str, Any], messages: list[dict[str, str]]) -> None:
    """Line by line until the end of the input; an answer that failed takes its question back."""
    model = node.get("/api/status")["in_service"]
    say(f"talking to {model['model'] if model else 'nothing yet'}; Ctrl-D or /exit leaves")
    while True:
        try:
            line = input("> " if sys.stdin.isatty() else "")
        except EOFError:
            return
        if line.strip() in _LEAVE:
            return
        if not line.strip():
            continue
        messages.append({"role": "user", "content": line})
        try:
            messages.append({"role": "assistant", "content": _answer(node, {**question, "messages": messages})})
        except EliasError as error:
            messages.pop()
            say(f"error: {error.what}\n  fix: {error.fix}")


def _answer(node: NodeClient, question: dict[str, Any]) -> str:
    """Printed as it comes."""
    said = []
    for event in node.stream(_PATH, {**question, "stream": True}):
        for choice in event.get("choices", ()):
            piece = choice.get("delta", {}).get("content") or ""
            said.append(piece)
            print(piece, end="", flush=True)
    print()
    return "".join(said)
