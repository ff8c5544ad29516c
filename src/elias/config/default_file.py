"""The `config.toml` that `elias init` writes: every setting with its default, commented out."""

from __future__ import annotations

import json
import re

from elias.domain.profile import PROFILES

DEFAULT_FILE = """\
# ELIAS. Every setting with its default: take away the `# ` before a line, and change it.
# Stronger than this file: the environment (ELIAS_NODE_PORT=4242), then a command's own flags.
# `elias config show` names each value and where it comes from.

# profile = "individual"        # presets: individual, small-business or research; every line below is stronger
# evaluators = ["heldout_loss", "doctests"]

[node]
# name = "node"                 # part of every remote name; two nodes that share a store need two names
# host = "127.0.0.1"
# port = 4141                   # of the API and the gateway

[store]
# url = "postgresql://user@host/elias"   # default: elias.db, SQLite, in this folder

[capture]
# label = "private"             # public, shared, private (leaves only encrypted) or secret (never leaves)

[training]
# base = "starter"              # default: DeepSeek-Coder 6.7B where there is a GPU for it, else starter
# strategy = "local"
# hybrid_without = ["local"]    # places that hybrid leaves out
# heldout_share = 0.1
# checkpoint_every = "5m"
# lease = "30s"                 # a trainer that nobody asks after for this long pauses by itself
# allow_code = false            # whether Python code that comes with a model may run
# threads = 4                   # default: all that the process may use
# on_battery = false            # whether a node trains here while this machine runs on its battery
# keep_free_hours = true        # whether runs with a budget leave hours of a weekly quota to those without

[budget]
# run = "20usd"                 # caps on money, none by default; without this one a run spends only its own --budget
# day = "5usd"                  # of all runs together, from midnight to midnight UTC
# month = "50usd"
# account = "500usd"            # of all that is ever spent

[gate]
# metric = "heldout_loss"
# rival = "in_service"          # or "base"
# level = 0.95
# no_worse_in_any_stage = true

[judge]
# examples = 200                # whose held-out loss is taken, at most; more make the interval narrower
# functions = 12                # written anew for their doctests, at most
# answer_tokens = 256           # of each of them

[serving]
# engine = "llamacpp"           # default: the first that can serve the model
# threads = 4
# canary = "Say hello."
# drain = "30s"
# silent_for = "30s"
# queue_bound = 2               # with more requests at the gateway, training on this machine makes way
# latency_bound = "10s"         # and where an answer takes longer to begin
# calm_for = "1m"               # before it comes back

# Each backend has a table of its own, such as [backends.local]; docs/configuration.md lists what belongs in it.
"""


def file_for(profile: str) -> str:
    """The same file with the profile chosen, and each line that it presets showing its value."""
    chosen = PROFILES[profile]
    text = DEFAULT_FILE.replace('# profile = "individual" ', f'profile = "{profile}" ', 1)
    section, lines = "", []
    for line in text.split("\n"):
        header, setting = re.fullmatch(r"\[(\w+)\]", line), re.match(r"# (\w+) = ", line)
        section = header[1] if header else section
        name = f"{section}.{setting[1]}" if setting else ""
        lines.append(f"# {_line(name, chosen.settings[name])}   # {profile}" if name in chosen.settings else line)
    return "\n".join(lines)


def _line(name: str, value: object) -> str:
    written = json.dumps(value)  # a string, a number and a truth are written alike in TOML
    return f"{name.rpartition('.')[2]} = {written}"
