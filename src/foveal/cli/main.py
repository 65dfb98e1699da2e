"""Entry of the ``foveal`` command: picks the command, and turns what a user can cause into one line."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Annotated

from foveal.cli.advise import ABOUT as ADVISE
from foveal.cli.advise import Advise
from foveal.cli.bench import ABOUT as BENCH
from foveal.cli.bench import Bench
from foveal.cli.compare import ABOUT as COMPARE
from foveal.cli.compare import Compare
from foveal.cli.cost import ABOUT as COST
from foveal.cli.cost import Cost
from foveal.cli.info import ABOUT as INFO
from foveal.cli.info import Info
from foveal.cli.ledger import ABOUT as LEDGER
from foveal.cli.ledger import Ledger
from foveal.cli.models import ABOUT as MODELS
from foveal.cli.models import Models
from foveal.errors import FovealError

FAILED, INTERRUPTED = 2, 130
ABOUT = "The workbench for attention in vision. foveal COMMAND --help shows the options of a command."


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given in (["--version"], ["-V"]):
        import foveal

        print(f"foveal {foveal.__version__}")
        return 0
    command = parse(given)
    try:
        return command.run()
    except FovealError as error:
        print(f"{type(error).__name__}: {' '.join(str(error).split())}", file=sys.stderr)
        return FAILED
    except KeyboardInterrupt:
        print(f"Interrupted. {command.when_interrupted}", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        # The reader of a pipe has gone; the next flush at exit would say so once more.
        sys.stdout = None
        return 1


def parse(given: Sequence[str]) -> Advise | Bench | Compare | Cost | Info | Ledger | Models:
    """The command with its options; says what is wrong with them and exits."""
    import tyro

    commands = (
        Annotated[Advise, tyro.conf.subcommand("advise", description=ADVISE)]
        | Annotated[Bench, tyro.conf.subcommand("bench", description=BENCH)]
        | Annotated[Compare, tyro.conf.subcommand("compare", description=COMPARE)]
        | Annotated[Cost, tyro.conf.subcommand("cost", description=COST)]
        | Annotated[Info, tyro.conf.subcommand("info", description=INFO)]
        | Annotated[Ledger, tyro.conf.subcommand("ledger", description=LEDGER)]
        | Annotated[Models, tyro.conf.subcommand("models", description=MODELS)]
    )
    config = (tyro.conf.OmitArgPrefixes, tyro.conf.FlagCreatePairsOff)
    return tyro.cli(commands, prog="foveal", description=ABOUT, args=given, config=config)
