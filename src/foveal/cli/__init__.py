"""The command line: the only place that parses arguments. Nothing heavy is imported before a command runs."""

from foveal.cli.main import main

__all__ = ["main"]
