"""Runs the explorer until Ctrl-C."""

from __future__ import annotations

import socket
from collections.abc import Callable
from contextlib import suppress

from foveal.app.server import create_app
from foveal.app.shelf import Shelf
from foveal.errors import OptionError


def serve(shelf: Shelf, first: str, host: str, port: int, *, ready: Callable[[str], object]) -> None:
    """Answer until interrupted; ``ready`` is told the address once it can be opened.

    Raises:
        OptionError: the port is taken, or the address is none of this machine.
    """
    import uvicorn

    listening = listen(host, port)
    port = listening.getsockname()[1]
    address = f"http://{f'[{host}]' if ':' in host else host}:{port}/"
    ready(address)
    app = create_app(shelf, hosts=reached_by(host, port), first=first)
    config = uvicorn.Config(app, log_level="warning", access_log=False, timeout_keep_alive=5, limit_concurrency=200)
    uvicorn.Server(config).run(sockets=[listening])


def reached_by(host: str, port: int) -> tuple[str, ...]:
    """The ``name:port`` that a browser may write for this server."""
    names = {host, "127.0.0.1", "localhost", "[::1]"}
    if host in ("0.0.0.0", "::"):  # listening everywhere, under whatever name the machine has
        names |= {socket.gethostname(), socket.getfqdn()}
        with suppress(OSError):  # a machine need not know its own name
            names |= set(socket.gethostbyname_ex(socket.gethostname())[2])
    return tuple(f"{name}:{port}" for name in names)


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens, or a sentence why none does."""
    kind = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(kind, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
        listening.listen(128)
    except OSError as error:
        listening.close()
        raise OptionError(
            f"explore: {host}:{port} cannot be listened on: {error.strerror or error}. Use --port 0 for any free one."
        ) from error
    return listening
