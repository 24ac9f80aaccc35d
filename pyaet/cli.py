"""The `pyaet` command: parses, calls, and turns every fault into one sentence and an exit code.

0 done; 1 failed with a named reason; 2 bad usage or bad input; 130 interrupted (the same command resumes).
"""

from __future__ import annotations

import logging
import signal
import sys
import threading
from collections.abc import Sequence
from typing import Any

import typer

from pyaet.commands import judge, road, stages, tune
from pyaet.io.errors import InputError, RunError
from pyaet.rooms import foreign_room

INTERRUPTED = "interrupted; run the same command again: what is finished is kept"

app = typer.Typer(
    name="pyaet",
    help="Atomic electron tomography: a raw tilt series in, atoms, elements and rings out.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for room in (road, stages, tune, judge):
    room.register(app)


@app.callback(invoke_without_command=True)
def _options(version: bool = typer.Option(False, "--version", help="Show the version and exit.")) -> None:
    if version:
        import pyaet

        typer.echo(f"pyaet {pyaet.__version__}")
        raise typer.Exit


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of the command; leaves through `sys.exit` with the exit code."""
    signal.signal(signal.SIGTERM, _terminate)
    sys.unraisablehook = _unraisable
    sys.exit(_exit_code(arguments))


def _exit_code(arguments: Sequence[str] | None) -> int:
    try:
        if fault := foreign_room():
            raise InputError(fault)
        code = int(app(arguments, prog_name="pyaet", standalone_mode=False) or 0)
        return _complain(INTERRUPTED, 130) if code == 130 else code
    except InputError as error:
        return _complain(str(error), 2)
    except RunError as error:
        return _complain(str(error), 1)
    except (KeyboardInterrupt, typer.Abort):
        return _complain(INTERRUPTED, 130)
    except MemoryError:
        return _complain("out of memory; `pyaet validate PLAN.toml` states what a run needs", 1)
    except BrokenPipeError:
        sys.stderr.close()
        return 1
    except Exception as error:
        if hasattr(error, "format_message") and hasattr(error, "exit_code"):
            return _complain(f"{error.format_message()} See pyaet --help.", int(error.exit_code))
        logging.getLogger("pyaet").debug("unexpected fault", exc_info=True)
        return _complain(f"{type(error).__name__}: {error} (unexpected; a run's log.txt has the details)", 1)


def _complain(text: str, code: int) -> int:
    print(f"pyaet: {text}", file=sys.stderr)
    return code


def _terminate(number: int, frame: Any) -> None:
    raise KeyboardInterrupt


def _unraisable(fault: Any) -> None:
    """Raise an interruption once more that came while an object was taken apart, where Python drops exceptions."""
    if not issubclass(fault.exc_type, KeyboardInterrupt):
        return sys.__unraisablehook__(fault)
    again = threading.Timer(0.05, signal.pthread_kill, (threading.main_thread().ident, signal.SIGINT))
    again.daemon = True
    again.start()
