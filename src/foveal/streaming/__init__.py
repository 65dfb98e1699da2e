"""Maps larger than memory, evaluated band by band, and maps split in bands over the ranks of a process group."""

from foveal.streaming.run import run

__all__ = ["run"]
