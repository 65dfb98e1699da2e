"""``python -m foveal`` is the ``foveal`` command: what torchrun starts as ``torchrun … -m foveal train RECIPE``."""

from foveal.cli import main
from foveal.cli.together import leave, started

if __name__ == "__main__":
    status = main()
    if started():
        leave(status)
    raise SystemExit(status)
