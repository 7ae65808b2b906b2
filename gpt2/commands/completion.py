"""Scripts that let a shell complete command lines, made by `shtab`.

A script is made once, from the parser, and the shell runs it alone. So a press
of Tab does not wait for Python to start.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator

import shtab

from gpt2.weights.locating import PRESET_NAMES

_NAMES = " ".join(PRESET_NAMES)
_MODEL = {
    "bash": "_gpt2_models_or_files",
    "zsh": "_gpt2_models_or_files",
    "fish": f"(string split ' ' '{_NAMES}'; "
    "__fish_complete_path (commandline -ct))",
    "preamble": {
        "bash": f"""
_gpt2_models_or_files() {{
  compgen -W "{_NAMES}" -- "$1"
  compgen -f -- "$1"
}}
""",
        "zsh": f"""
_gpt2_models_or_files() {{
  compadd {_NAMES}
  _files
}}
""",
    },
}
_COMPLETE = {
    "MODEL": _MODEL,
    "IN": _MODEL,
    "OUT": shtab.FILE,
    "FILE": shtab.FILE,
}
"""How to complete a value, by its name in the help. Choices complete by
themselves."""


def script(parser: argparse.ArgumentParser, shell: str) -> str:
    """Return the script of a shell, `bash`, `zsh` or `fish`."""
    for action in _actions(parser):
        if action.metavar in _COMPLETE:
            action.complete = _COMPLETE[action.metavar]  # type: ignore
    return shtab.complete(parser, shell)


def _actions(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    """Yield the arguments of a parser and of its commands."""
    for action in parser._actions:
        yield action
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                yield from _actions(command)
