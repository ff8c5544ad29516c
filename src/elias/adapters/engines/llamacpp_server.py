"""The program of the llama.cpp child: one server on a loopback port, behind a key, until it is ended."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
from typing import Any

import xllamacpp  # type: ignore[import-untyped]  # a compiled module without stubs

from elias.adapters.engines.child import KEY_VARIABLE

_PROMPT_CACHE_MIB = 256
"""Of finished prompts kept in memory; llama.cpp's own default is 8 GiB."""


def main(arguments: list[str]) -> None:
    options = _parser().parse_args(arguments)
    server = xllamacpp.Server(_parameters(options, os.environ.pop(KEY_VARIABLE)))
    with os.fdopen(options.ready_fd, "w") as ready:
        print(json.dumps({"url": server.listening_address}), file=ready)
    while True:
        signal.pause()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="llamacpp_server")
    parser.add_argument("--model", required=True)
    parser.add_argument("--lora")
    parser.add_argument("--chat-template")
    parser.add_argument("--name", required=True)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--context", type=int, required=True)
    parser.add_argument("--slots", type=int, required=True)
    parser.add_argument("--ready-fd", type=int, required=True)
    return parser


def _parameters(options: argparse.Namespace, api_key: str) -> Any:
    """By default llama.cpp has no key and lets every web page in; its extras stay shut."""
    parameters = xllamacpp.CommonParams()
    parameters.model.path = options.model
    parameters.model_alias = {options.name}
    parameters.hostnames, parameters.port = ["127.0.0.1"], 0
    parameters.api_keys = [api_key]
    parameters.cors_origins, parameters.cors_credentials = "none", False
    parameters.ui = parameters.endpoint_slots = parameters.endpoint_props = False
    parameters.n_ctx, parameters.n_parallel, parameters.kv_unified = options.context, options.slots, True
    parameters.cpuparams.n_threads = parameters.cpuparams_batch.n_threads = options.threads
    parameters.cache_ram_mib = _PROMPT_CACHE_MIB
    if options.chat_template:
        parameters.chat_template = options.chat_template
    if options.lora:
        parameters.lora_adapters = [xllamacpp.CommonAdapterLoraInfo(options.lora, 1.0)]
    return parameters


if __name__ == "__main__":
    main(sys.argv[1:])
