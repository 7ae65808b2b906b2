"""The commands, and the parser of the command line."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import NoReturn

import gpt2
from gpt2.commands import convert, evaluate, generate, inspect, predict, train

COMMANDS = {
    "generate": generate,
    "predict": predict,
    "inspect": inspect,
    "convert": convert,
    "train": train,
    "eval": evaluate,
}


class Parser(argparse.ArgumentParser):
    """A parser that reports wrong usage in one line, like any other error."""

    def error(self, message: str) -> NoReturn:
        """Print the error and a pointer to the help, and exit with code 2."""
        line = " ".join(message.split())
        self.exit(2, f"gpt2: {line} (see {self.prog} --help)\n")


class ShowVersion(argparse.Action):
    """Print the version and exit. The version is read only when needed."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        """Handle the option."""
        print(f"gpt2 {gpt2.__version__}")
        parser.exit()


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Parse the command line; on wrong usage, report it and exit with 2."""
    parser = Parser(
        prog="gpt2",
        description="Run a GPT-2: continue a text, explain a prediction, "
        "inspect or convert a checkpoint, train a model and evaluate it.",
    )
    parser.add_argument(
        "--version", action=ShowVersion, nargs=0, help="print the version"
    )
    commands = parser.add_subparsers(
        required=True, dest="command", metavar="COMMAND"
    )
    for name, command in COMMANDS.items():
        command.add_options(
            commands.add_parser(
                name, help=command.HELP, description=command.DESCRIPTION
            )
        )
    return parser.parse_args(arguments)
