"""Maps larger than memory, evaluated band by band, and maps split in bands over the ranks of a process group."""

from foveal.streaming.ranks import Traffic
from foveal.streaming.run import run
from foveal.streaming.split import over_ranks

__all__ = ["Traffic", "over_ranks", "run"]
