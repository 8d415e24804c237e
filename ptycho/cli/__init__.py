"""The `ptycho` command."""

from ptycho.cli.command import main

__all__ = ["main"]
