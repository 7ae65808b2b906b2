"""The command line: `python -m gpt2`, or `gpt2` once installed.

Nothing is imported here that takes time: from the first moment on, Ctrl-C is
to end the program and not to print where it was.
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

INTERRUPTED = 130  # as a shell reports a program that Ctrl-C has ended
PIPE_CLOSED = 141  # and one that wrote to a pipe without a reader


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        arguments: What follows the program's name. None: those that this
            process was started with, which is then all that it is for: it
            answers Ctrl-C in its own way until it ends.

    Returns:
        The exit code: 0, or 1 for a failure, 2 for bad use, 130 for Ctrl-C,
        141 for training that nobody follows any more.
    """
    ctrl_c = CtrlC()
    if arguments is None:
        open_closed_streams()
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            signal.signal(signal.SIGINT, ctrl_c)
        warnings.showwarning = show_in_one_line
    from gpt2.commands.parsing import COMMANDS, parse
    from gpt2.tokenizer.bpe import TokenizerError
    from gpt2.weights.errors import CheckpointError

    options = parse(arguments)
    # A terminal without UTF-8 gets a "?". What a notebook prints to is no
    # terminal and takes any text.
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    try:
        ctrl_c.at_once = False
        COMMANDS[options.command].run(options)
        sys.stdout.flush()
        return 0
    except KeyboardInterrupt:
        with contextlib.suppress(OSError):  # nobody may be reading
            print(file=sys.stderr)  # what follows begins on its own line
        return INTERRUPTED
    except BrokenPipeError:  # whoever was reading has seen enough
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError):  # not every stream has a number
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        return PIPE_CLOSED if options.command == "train" else 0
    except (CheckpointError, TokenizerError, OSError, RuntimeError) as error:
        return fail(error, 1)
    except MemoryError as error:
        return fail(error, 1)
    except ValueError as error:
        return fail(error, 2)
    finally:
        ctrl_c.at_once = True


class CtrlC:
    """What Ctrl-C does: the command ends in order, if it has begun.

    Before it has begun there is nothing to put in order, and likewise while
    something is imported: there Python's KeyboardInterrupt is lost, or comes
    out as another error, where C code is at work. Whoever presses it a second
    time does not want to wait.
    """

    def __init__(self) -> None:
        """Begin with what is right before the command."""
        self.at_once = True

    def __call__(self, number: int, frame: FrameType | None) -> None:
        """Be called for the signal, by Python."""
        if self.at_once or is_importing(frame):
            with contextlib.suppress(OSError):
                os.write(2, b"\n")
            os._exit(INTERRUPTED)
        self.at_once = True
        raise KeyboardInterrupt


def is_importing(frame: FrameType | None) -> bool:
    """Tell whether an import is going on in this frame or one below it."""
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False


def open_closed_streams() -> None:
    """Give standard streams that are closed a place to go to.

    A file that is opened later would otherwise get the number of a closed one,
    and what is meant for a terminal could be written into it.
    """
    for name in ("stdin", "stdout", "stderr"):
        if getattr(sys, name) is None:
            number = os.open(os.devnull, os.O_RDWR)
            if name != "stdin":  # that stays None: nothing can be read
                setattr(sys, name, os.fdopen(number, "w"))


def show_in_one_line(message: object, *place: object, **more: object) -> None:
    """Show a warning like an error, without the code that it comes from."""
    fail(Warning(message), 0)


def fail(error: BaseException, code: int) -> int:
    """Report an error in one line, and return the exit code."""
    message = " ".join(str(error).split()) or type(error).__name__
    with contextlib.suppress(OSError):  # nobody may be reading
        print(f"gpt2: {message}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
