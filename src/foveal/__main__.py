"""``python -m foveal`` is the ``foveal`` command: what torchrun starts as ``torchrun … -m foveal train RECIPE``."""

from foveal.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
