"""The folder of what is worked out once on this machine; everything in it can be deleted."""

from __future__ import annotations

import os
import sys
from pathlib import Path


def cache_folder() -> Path:
    """``foveal`` in the folder where the platform keeps caches; ``XDG_CACHE_HOME`` goes first."""
    asked = os.environ.get("XDG_CACHE_HOME")
    if asked and Path(asked).is_absolute():
        return Path(asked) / "foveal"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "foveal"
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local") / "foveal" / "Cache"
    return Path.home() / ".cache" / "foveal"
