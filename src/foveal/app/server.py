"""The explorer's server: one page and a few questions that it asks, for this machine alone unless told otherwise."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse

from foveal.app import answers, uploads
from foveal.app.shelf import GoneError, Shelf
from foveal.errors import FovealError, NoMatchError, OptionError
from foveal.tasks.shown import SAMPLES, shipped

PAGE = Path(__file__).with_name("page.html")
HEADERS = {
    # The page brings its own script and style; nothing from elsewhere is ever asked for.
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; connect-src 'self'; "
        "img-src 'self' data: blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}
GATES = ("foveal_se_", "foveal_eca_", "foveal_cbam_")  # they weigh channels, or all positions alike: nothing to click
Next = Callable[[Request], Awaitable[Response]]


def create_app(shelf: Shelf, *, hosts: tuple[str, ...], first: str) -> FastAPI:
    """The application.

    Args:
        shelf: models that are loaded.
        hosts: ``name:port`` that the page is reached by; requests for others, and from other origins, are refused.
        first: the sample image that the page begins with.
    """
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)

    @app.middleware("http")
    async def guard(request: Request, call_next: Next) -> Response:
        refused = _refused(request, hosts)
        response = refused or await call_next(request)
        response.headers.update(HEADERS)
        return response

    @app.exception_handler(FovealError)
    async def told(request: Request, error: FovealError) -> JSONResponse:
        status = 410 if isinstance(error, GoneError) else 404 if isinstance(error, NoMatchError) else 400
        return JSONResponse({"error": " ".join(str(error).split())}, status)

    @app.exception_handler(RequestValidationError)
    async def misasked(request: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        told = f"explore: {'.'.join(map(str, first['loc']))} is wrong: {first['msg']}. Reload the page."
        return JSONResponse({"error": told}, 400)

    @app.get("/", response_class=HTMLResponse)
    async def page() -> str:
        return PAGE.read_text(encoding="utf-8")

    @app.get("/api/start")
    def start() -> dict[str, Any]:
        from foveal.models.catalog import CATALOG

        # Counting what a model costs takes seconds, in which another may be loaded.
        told = [answers.model_told(shelf, label) for label in list(shelf.models)]
        attending = sorted(name for name in CATALOG if not name.startswith(GATES))
        return {"models": told, "catalog": attending, "samples": SAMPLES, "first": first}

    @app.post("/api/models")
    async def load(request: Request) -> dict[str, Any]:
        name = (await _body(request, 200)).decode("utf-8", "replace")
        return await run_in_threadpool(_load, shelf, name)

    @app.post("/api/images")
    async def upload(request: Request) -> dict[str, str]:
        body = await _body(request, uploads.MOST_BYTES)
        return {"image": shelf.add(await run_in_threadpool(uploads.opened, body))}

    @app.post("/api/samples/{name}")
    def use(name: str) -> dict[str, str]:
        if name not in SAMPLES:
            raise NoMatchError(f"explore: there is no sample {name!r}. There are {', '.join(SAMPLES)}.")
        return {"image": shelf.add(shipped(name), name)}

    @app.get("/api/picture")
    def picture(image: str, model: str) -> Response:
        from foveal.viz.overlay import as_rgb, png, to_bytes

        shown = shelf.picture(image, model).permute(1, 2, 0).numpy()
        return Response(png(to_bytes(as_rgb(shown))), media_type="image/png")

    @app.get("/api/layers")
    def layers(image: str, model: str) -> list[dict[str, Any]]:
        return answers.layers_told(shelf, image, model)

    @app.get("/api/row")
    def row(image: str, model: str, layer: str, y: float, x: float, radius: float | None = None) -> dict[str, Any]:
        return answers.row_told(shelf.look(image, model, layer, (y, x), radius))

    @app.get("/api/shared")
    def shared(image: str, model: str, layer: str, head: int = 0) -> dict[str, Any]:
        maps = shelf.shared(image, model, layer, head)
        return {"count": 0} if maps is None else {"count": len(maps), **answers.quantised(maps)}

    return app


def _load(shelf: Shelf, name: str) -> dict[str, Any]:
    from foveal.models.catalog import CATALOG

    # A browser names a network of the catalogue and nothing else: no path, no package, no option.
    if name not in CATALOG:
        raise NoMatchError(f"explore: {name[:80]!r} is no network of foveal. foveal models lists them.")
    return answers.model_told(shelf, shelf.load(name, files=False))


async def _body(request: Request, most: int) -> bytes:
    """The body of a request, read no further than allowed."""
    declared = request.headers.get("content-length", "")
    if declared.isdigit() and int(declared) > most:
        _too_long(int(declared), most)
    read = bytearray()
    async for chunk in request.stream():
        read += chunk
        if len(read) > most:
            _too_long(len(read), most)
    return bytes(read)


def _too_long(count: int, most: int) -> None:
    if most == uploads.MOST_BYTES:
        uploads.check_size(count)
    raise OptionError(f"explore: {count} bytes are too many, at most {most} are taken.")


def _refused(request: Request, hosts: tuple[str, ...]) -> Response | None:
    """Pages of other sites reach a server of this machine too, by its address or by a name that points to it."""
    host, origin = request.headers.get("host", ""), request.headers.get("origin")
    same = origin is None or origin.partition("://")[2] in hosts
    if "*" in hosts or (
        host in hosts and same and request.headers.get("sec-fetch-site") in (None, "same-origin", "none")
    ):
        return None
    return JSONResponse(
        {"error": f"explore: requests from {origin or host} are refused. Open the printed address."}, 403
    )
