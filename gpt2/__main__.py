"""The command line: `python -m gpt2`, or `gpt2` once installed."""

from __future__ import annotations

import argparse
import io
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from gpt2.bpe import TokenizerError
from gpt2.commands import convert, evaluate, generate, inspect, predict, train
from gpt2.weights.errors import CheckpointError

COMMANDS = {
    "generate": generate,
    "predict": predict,
    "inspect": inspect,
    "convert": convert,
    "train": train,
    "eval": evaluate,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        arguments: What follows the program's name; those it was started with
            by default.

    Returns:
        The exit code: 0, or 1 for a failure, 2 for bad use, 130 for Ctrl-C.
    """
    options = parse(arguments)
    # A terminal without UTF-8 gets a "?". What a notebook prints to is no
    # terminal and takes any text.
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    try:
        COMMANDS[options.command].run(options)
        sys.stdout.flush()
        return 0
    except KeyboardInterrupt:
        print(file=sys.stderr)
        return 130
    except BrokenPipeError:  # whoever was reading has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (CheckpointError, TokenizerError, OSError, RuntimeError) as error:
        return fail(error, 1)
    except ValueError as error:
        return fail(error, 2)


class Parser(argparse.ArgumentParser):
    """Report bad use in one line, as every other error."""

    def error(self, message: str) -> NoReturn:
        """Say what is wrong and where to read more, and exit with 2."""
        self.exit(2, f"gpt2: {message} (see {self.prog} --help)\n")


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Parse the command line; on bad use, say so and exit with 2."""
    parser = Parser(
        prog="gpt2",
        description="Run a GPT-2: continue a text, explain a prediction, look "
        "into a checkpoint or convert it, train a model and measure it.",
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


def fail(error: Exception, code: int) -> int:
    """Report an error in one line, and return the exit code."""
    message = " ".join(str(error).split()) or type(error).__name__
    print(f"gpt2: {message}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
