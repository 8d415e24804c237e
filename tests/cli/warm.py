"""A process that has imported what the command imports, and forks one for every command: importing is most of its time.

    python -m tests.cli.warm

takes a request a line, as JSON, and answers with the exit code of the process that ran it. That one ends without taking
apart what was imported, which takes longer than most commands.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import json
import os
import signal
import sys
import traceback
from typing import Any

from ptycho import cli

LONGEST = 300
"""Seconds after which a command is ended."""


def commands() -> dict[str, Any] | None:
    """In a new process the request that is its own; None in this one, when no more are made."""
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            return json.loads(line)
        sys.stdout.write(f"{os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])}\n")
        sys.stdout.flush()
    return None


def become(request: dict[str, Any]) -> None:
    """Take over folder, environment, words and streams, as a process that is started has them."""
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["environment"])
    sys.argv = ["ptycho", *request["words"]]
    for number, path in enumerate([os.devnull, request["out"], request["err"]]):
        opened = os.open(path, os.O_WRONLY if number else os.O_RDONLY)
        os.dup2(opened, number)
        os.close(opened)
    signal.alarm(LONGEST)


if __name__ == "__main__":
    with contextlib.suppress(ImportError):
        import ptycho_torch.training  # noqa: F401
    gc.collect()
    gc.freeze()
    mine = commands()
    if mine is not None:
        become(mine)
        code = 1
        try:
            code = cli.main()
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else int(end.code is not None)
        except BaseException:
            traceback.print_exc()
        atexit._run_exitfuncs()
        sys.stdout.flush()
        os._exit(code)
