"""Entry of the ``foveal`` command: picks the command, and turns what a user can cause into one line."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import reduce
from operator import or_
from typing import Annotated, Any, Protocol

from foveal.cli.advise import ABOUT as ADVISE
from foveal.cli.advise import Advise
from foveal.cli.bench import ABOUT as BENCH
from foveal.cli.bench import Bench
from foveal.cli.bench import parse as parse_bench
from foveal.cli.compare import ABOUT as COMPARE
from foveal.cli.compare import Compare
from foveal.cli.cost import ABOUT as COST
from foveal.cli.cost import Cost
from foveal.cli.data import ABOUT as DATA
from foveal.cli.data import Data
from foveal.cli.evaluate import ABOUT as EVALUATE
from foveal.cli.evaluate import Evaluate
from foveal.cli.explore import ABOUT as EXPLORE
from foveal.cli.explore import Explore
from foveal.cli.figure import ABOUT as FIGURE
from foveal.cli.figure import Figure
from foveal.cli.info import ABOUT as INFO
from foveal.cli.info import Info
from foveal.cli.ledger import ABOUT as LEDGER
from foveal.cli.ledger import Ledger
from foveal.cli.models import ABOUT as MODELS
from foveal.cli.models import Models
from foveal.cli.predict import ABOUT as PREDICT
from foveal.cli.predict import Predict
from foveal.cli.said import plain_warnings, said_by
from foveal.cli.sweep import ABOUT as SWEEP
from foveal.cli.sweep import parse as parse_sweep
from foveal.cli.together import hushed, speaks
from foveal.cli.train import ABOUT as TRAIN
from foveal.cli.train import parse as parse_train
from foveal.errors import ElsewhereError, FovealError

FAILED, SIGNALLED = 2, 128


class Command(Protocol):
    """The options of a command, and what it does."""

    @property
    def when_interrupted(self) -> str:
        """What to tell who pressed Ctrl-C."""

    def run(self) -> int:
        """Do it; returns the exit status."""


@dataclass(frozen=True)
class Listed:
    """A command that reads its own arguments, in the list of all."""


OWN: dict[str, Callable[[Sequence[str]], Command]] = {"bench": parse_bench, "sweep": parse_sweep, "train": parse_train}
"""Commands that parse their arguments themselves: those whose options have defaults that a file gives."""
COMMANDS: dict[str, tuple[Any, str]] = {
    "advise": (Advise, ADVISE),
    "bench": (Bench, BENCH),
    "compare": (Compare, COMPARE),
    "cost": (Cost, COST),
    "data": (Data, DATA),
    "evaluate": (Evaluate, EVALUATE),
    "explore": (Explore, EXPLORE),
    "figure": (Figure, FIGURE),
    "info": (Info, INFO),
    "ledger": (Ledger, LEDGER),
    "models": (Models, MODELS),
    "predict": (Predict, PREDICT),
    "sweep": (Listed, SWEEP),
    "train": (Listed, TRAIN),
}
ABOUT = "The workbench for attention in vision. foveal COMMAND --help shows the options of a command."


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given in (["--version"], ["-V"]):
        import foveal

        print(f"foveal {foveal.__version__}")
        return 0
    command: Command | None = None
    try:
        with nullcontext() if speaks() else hushed():
            # Every process is given the same, so what is wrong with it is said by one.
            command = OWN[given[0]](given[1:]) if given[:1] and given[0] in OWN else parse(given)
        with plain_warnings():
            return command.run()
    except ElsewhereError:
        return FAILED
    except FovealError as error:
        if command is not None or speaks():
            print(f"{type(error).__name__}: {said_by(given[0], error)}", file=sys.stderr)
        return FAILED
    except KeyboardInterrupt as error:
        if speaks():
            print(f"Interrupted. {command.when_interrupted if command else ''}".rstrip(), file=sys.stderr)
        return SIGNALLED + (error.args[0] if error.args else signal.SIGINT)
    except BrokenPipeError:
        # The reader of a pipe has gone; the next flush at exit would say so once more.
        sys.stdout = None
        return 1


def parse(given: Sequence[str]) -> Command:
    """The command with its options; says what is wrong with them and exits."""
    import tyro

    named = COMMANDS.items()
    kinds = (Annotated[kind, tyro.conf.subcommand(name, description=told)] for name, (kind, told) in named)
    commands: Any = reduce(or_, kinds)
    config = (tyro.conf.OmitArgPrefixes, tyro.conf.FlagCreatePairsOff)
    made: Command = tyro.cli(commands, prog="foveal", description=ABOUT, args=given, config=config)
    return made
