"""The commands, and the parser of the command line."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Sequence
from typing import Any, NoReturn

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

    def exit(self, status: int = 0, message: str | None = None) -> NoReturn:
        """Exit, after what was printed is written.

        Python would write it as its last act, when no error can be handled.

        Raises:
            BrokenPipeError: Nobody reads it any longer.
        """
        sys.stdout.flush()
        super().exit(status, message)


class Formatter(argparse.HelpFormatter):
    """A formatter that does not wrap the examples."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        if text.startswith(EXAMPLES):
            return text
        return super()._fill_text(text, width, indent)


EXAMPLES = "examples:\n"
"""What the end of a help begins with."""


def examples(lines: Iterable[str]) -> str:
    """Return the end of a help: command lines to try."""
    return EXAMPLES + "\n".join(f"  {line}" for line in lines)


class ShowVersion(argparse.Action):
    """Print the version and exit. The version is read only when needed."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        """Handle the option."""
        print(f"gpt2 {gpt2.__version__}")
        parser.exit()


class ShowCompletion(argparse.Action):
    """Print a script that completes command lines, and exit."""

    def __call__(
        self, parser: argparse.ArgumentParser, _: object, shell: Any, *__: Any
    ) -> None:
        """Handle the option. The library is imported only when needed."""
        from gpt2.commands.completion import script

        print(script(parser, shell))
        parser.exit()


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Parse the command line; on wrong usage, report it and exit with 2."""
    parser = Parser(
        prog="gpt2",
        description="Run a GPT-2: continue a text, explain a prediction, "
        "inspect or convert a checkpoint, train a model and evaluate it. "
        "Each command has a --help of its own.",
        epilog=examples(command.EXAMPLES[0] for command in COMMANDS.values()),
        formatter_class=Formatter,
    )
    parser.add_argument(
        "--version", action=ShowVersion, nargs=0, help="print the version"
    )
    parser.add_argument(
        "--completion",
        action=ShowCompletion,
        choices=("bash", "zsh", "fish"),
        help="print a script that lets Tab complete commands and options: "
        'put eval "$(gpt2 --completion bash)" at the end of ~/.bashrc, the '
        "same with zsh at the end of ~/.zshrc, or gpt2 --completion fish | "
        "source into ~/.config/fish/config.fish",
    )
    commands = parser.add_subparsers(
        required=True, dest="command", metavar="COMMAND"
    )
    for name, command in COMMANDS.items():
        command.add_options(
            commands.add_parser(
                name,
                help=command.HELP,
                description=command.DESCRIPTION,
                epilog=examples(command.EXAMPLES),
                formatter_class=Formatter,
            )
        )
    return parser.parse_args(arguments)
