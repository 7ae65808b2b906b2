"""The command line: `python -m gpt2`, or `gpt2` once installed.

This file imports nothing slow, so that Ctrl-C ends the program quietly from
the very start, without a traceback.
"""

from __future__ import annotations

import contextlib
import io
import os
import signal
import sys
import warnings
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import FrameType

INTERRUPTED = 130  # what a shell reports for a program ended by Ctrl-C
PIPE_CLOSED = 141  # and for one that wrote to a pipe without a reader


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        arguments: The command line after the program's name. None means that
            of this process, which then belongs to the command line: its
            streams, its warnings and its Ctrl-C are set up for it.

    Returns:
        The exit code: 0 for success, 1 for a failure, 2 for a usage error, 130
        for Ctrl-C, 141 if nothing reads the output of `train` any longer.
    """
    ctrl_c = CtrlC()
    if arguments is None:
        open_closed_streams()
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            signal.signal(signal.SIGINT, ctrl_c)
        warnings.showwarning = show_in_one_line
    from gpt2.commands.parsing import COMMANDS, parse
    from gpt2.commands.screen import Bar
    from gpt2.progress import shown_by
    from gpt2.tokenizer.bpe import TokenizerError
    from gpt2.weights.errors import CheckpointError

    replace_what_streams_lack()
    command = ""
    try:
        options = parse(arguments)
        command = options.command
        ctrl_c.at_once = False
        with shown_by(Bar):
            COMMANDS[command].run(options)
        sys.stdout.flush()
        return 0
    except KeyboardInterrupt:
        with contextlib.suppress(OSError):  # there may be no reader
            print(file=sys.stderr)  # what follows starts on its own line
        return INTERRUPTED
    except BrokenPipeError:  # the reader, such as `head`, has seen enough
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError):  # not every stream has a number
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        return PIPE_CLOSED if command == "train" else 0
    except (CheckpointError, TokenizerError) as error:
        return fail(error, 1)
    except (MemoryError, OSError, RuntimeError) as error:
        return fail(error, 1)
    except ValueError as error:
        return fail(error, 2)
    finally:
        ctrl_c.at_once = True


class CtrlC:
    """The handler of Ctrl-C: a running command cleans up before it ends.

    The process exits at once before a command has started, when there is
    nothing to clean up; during an import, where C code may swallow a
    KeyboardInterrupt or turn it into another error; and at a second Ctrl-C.
    """

    def __init__(self) -> None:
        """Start in the state before a command."""
        self.at_once = True

    def __call__(self, number: int, frame: FrameType | None) -> None:
        """Handle the signal.

        Raises:
            KeyboardInterrupt: The running command is to clean up and end.
        """
        if self.at_once or is_importing(frame):
            with contextlib.suppress(OSError):
                os.write(2, b"\n")
            os._exit(INTERRUPTED)
        self.at_once = True
        raise KeyboardInterrupt


def is_importing(frame: FrameType | None) -> bool:
    """Tell whether this frame, or one that called it, is importing."""
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False


def open_closed_streams() -> None:
    """Open standard streams that are closed, on the null device.

    Otherwise a file that is opened later could get the number of a closed
    stream, and messages for the terminal would be written into it.
    """
    for name in ("stdin", "stdout", "stderr"):
        if getattr(sys, name) is None:
            number = os.open(os.devnull, os.O_RDWR)
            if name != "stdin":  # that stays None: nothing can be read
                setattr(sys, name, os.fdopen(number, "w"))


def replace_what_streams_lack() -> None:
    """Let a terminal without UTF-8 show "?" for what it lacks.

    A notebook's output is no TextIOWrapper and takes any text.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def show_in_one_line(message: object, *place: object, **more: object) -> None:
    """Show a warning like an error, without the line of code it is from."""
    fail(Warning(message), 0)


def fail(error: BaseException, code: int) -> int:
    """Print an error in one line, and return the exit code."""
    message = " ".join(str(error).split()) or type(error).__name__
    with contextlib.suppress(OSError):  # there may be no reader
        print(f"gpt2: {message}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
