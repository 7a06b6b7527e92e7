"""`dnr-jax serve`: a trained model as an HTTP service."""

from __future__ import annotations

import gc
import os
import signal
import socket
import sys
from importlib import util
from pathlib import Path
from typing import Any

import click

from dnr_jax import console
from dnr_jax.cli.cache import cache_option

_PATH = click.Path(path_type=Path)
NEEDED = ("fastapi", "uvicorn", "httptools", "prometheus_client")
# Threads switch this often: at the default of 5 ms, a request would wait for a batch's arrays.
TURN_SECONDS = 0.0005
BACKLOG = 2048  # connections that the system holds until they are accepted


@click.command(short_help="Serve a model over HTTP.")
@click.argument("model", type=_PATH)
@click.option("--row", help="Which model of a run folder; not needed for a packed model.")
@click.option("--host", default="127.0.0.1", show_default=True, help="0.0.0.0 = from anywhere.")
@click.option(
    "--port",
    default=8080,
    show_default=True,
    type=click.IntRange(0, 65535),
    help="0 = any free port; which one is printed.",
)
@click.option(
    "--batch",
    default=32,
    show_default=True,
    type=click.IntRange(1, 1024),
    help="Most requests that are scored together.",
)
@click.option(
    "--waiting",
    default=128,
    show_default=True,
    type=click.IntRange(1),
    help="Most requests that wait; one more is answered 503 at once.",
)
@click.option(
    "--longest",
    type=click.IntRange(1),
    help="Most items of a request; default: as many as in training.",
)
@cache_option("compiled programs")
def serve(model: Path, row: str | None, cache: Path, **options: Any) -> None:
    """Serve a model over HTTP: POST /rank, GET /health, GET /metrics.

    MODEL is a model folder, or a run folder with --row. Every shape is compiled before the port is
    opened. SIGTERM or Ctrl-C finishes the requests in flight and ends with 0. Needs `pip install
    'dnr_jax[serve]'`.
    """
    with console.one_line("nothing was served"):
        missing = [name for name in NEEDED if util.find_spec(name) is None]
        if missing:
            raise ValueError(f"no {', '.join(missing)} here: pip install 'dnr_jax[serve]'")
        _run(model, row, cache, **options)


def _run(
    path: Path,
    row: str | None,
    cache: Path,
    *,
    host: str,
    port: int,
    batch: int,
    waiting: int,
    longest: int | None,
) -> None:
    import uvicorn

    from dnr_jax import serving
    from dnr_jax.io import compiled
    from dnr_jax.serving import online, service
    from dnr_jax.serving.one_write import OneWriteProtocol

    _listen(host, port).close()  # report a taken port before compiling anything
    compiled.keep(cache.expanduser() / "compiled")
    model = serving.load(path, row)
    engine = online.Engine(model, most=batch, longest=longest)
    click.echo(f"{engine.warm()} shapes compiled: batches {engine.batches}, lists {engine.sizes}")
    app = service.make(model, engine, limit=waiting)
    gc.collect()
    gc.freeze()  # a full collection would walk everything loaded, and block all requests
    sys.setswitchinterval(TURN_SECONDS)
    for number in (signal.SIGTERM, signal.SIGINT):  # what uvicorn raises again, once it has ended
        signal.signal(number, lambda *_: sys.exit(0))
    config = uvicorn.Config(
        app, http=OneWriteProtocol, access_log=False, log_level="warning", proxy_headers=False
    )
    server = uvicorn.Server(config)
    with _listen(host, port) as place:
        click.echo(f"serving {path} at http://{host}:{place.getsockname()[1]}")
        server.run(sockets=[place])


def _listen(host: str, port: int) -> socket.socket:
    try:
        return socket.create_server((host, port), backlog=BACKLOG)
    except OSError as error:
        said = os.strerror(error.errno) if error.errno and error.errno > 0 else error.strerror
        raise ValueError(
            f"cannot listen on {host}:{port} ({said}): choose another --port or --host"
        ) from None
