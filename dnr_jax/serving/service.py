"""A trained model as an HTTP service: `POST /rank`, `GET /health`, `GET /metrics`.

A request takes some 200 microseconds of Python; FastAPI's layers would be a fifth of that. So
FastAPI only documents `POST /rank`, and a short cut answers it.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import prometheus_client as prometheus
from fastapi import FastAPI, HTTPException, Request, Response
from fastapi.exception_handlers import (
    http_exception_handler,
    request_validation_exception_handler,
)
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Receive, Scope, Send

from dnr_jax.serving import messages
from dnr_jax.serving.batching import Batcher, OverloadedError
from dnr_jax.serving.model import Model
from dnr_jax.serving.online import Engine

LARGEST = 2**22  # bytes of a request's body
SECONDS = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
BATCHES = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class Gauges:
    """The metrics of one service, shown at `/metrics`."""

    def __init__(self, registry: prometheus.CollectorRegistry):
        own: dict[str, Any] = {"namespace": "dnr", "registry": registry}
        self.answers = prometheus.Counter(
            "requests", "Answers of POST /rank, by HTTP status", ["status"], **own
        )
        self.seconds = prometheus.Histogram(
            "request_seconds", "From a request's last byte to its answer", buckets=SECONDS, **own
        )
        self.batch = prometheus.Histogram(
            "batch_requests", "Requests that were scored together", buckets=BATCHES, **own
        )
        self.waiting = prometheus.Gauge("waiting", "Requests that wait for a batch", **own)
        self.unknown = prometheus.Counter(
            "unknown_values", "Values that training did not meet, or missing", ["column"], **own
        )


def make(model: Model, engine: Engine, *, limit: int) -> ASGIApp:
    """Make the service of a model whose engine is warm.

    Args:
      model: the model to serve.
      engine: its engine.
      limit: maximum number of waiting requests; beyond it, the answer is 503 at once.
    """
    registry = prometheus.CollectorRegistry()
    gauges = Gauges(registry)
    needed = model.reads_scores and model.first_stage is None
    reader = messages.Reader(model.encoders, scored=needed, longest=engine.sizes[-1])
    batcher = Batcher(partial(_begin, engine, gauges), most=engine.most, limit=limit)
    gauges.waiting.set_function(lambda: batcher.waiting)
    app = FastAPI(title="dnr-jax serve")
    schema = {"content": {"application/json": {"schema": reader.schema}}, "required": True}

    @app.post("/rank", openapi_extra={"requestBody": schema})
    async def rank(request: Request) -> Response:
        try:
            response = await _ranked(request, reader, batcher, gauges)
        except HTTPException as error:
            response = await http_exception_handler(request, error)
        except RequestValidationError as error:
            response = await request_validation_exception_handler(request, error)
        except ClientDisconnect:  # nobody is left to read the answer: it is only counted
            response = Response(status_code=499)
        except Exception:
            gauges.answers.labels(500).inc()
            raise
        gauges.answers.labels(response.status_code).inc()
        return response

    @app.get("/health")
    async def health() -> dict[str, Any]:
        return {"status": "ready", "reranker": model.card["reranker"]["name"]}

    @app.get("/metrics")
    async def metrics() -> Response:
        content = prometheus.generate_latest(registry)
        return Response(content, media_type=prometheus.CONTENT_TYPE_LATEST)

    return _short_cut(app, rank)


def _short_cut(app: FastAPI, rank: Callable[[Request], Awaitable[Response]]) -> ASGIApp:
    """Pass `POST /rank` directly to its function, and everything else to FastAPI."""

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and (scope["method"], scope["path"]) == ("POST", "/rank"):
            response = await rank(Request(scope, receive))
            await response(scope, receive, send)
        else:
            await app(scope, receive, send)

    return answer


def _begin(engine: Engine, gauges: Gauges, requests: Sequence[Any]) -> Callable[[], Any]:
    """Begin to score a batch; count it, and its values that were not seen in training."""
    gauges.batch.observe(len(requests))
    finish = engine.begin(requests)

    def scores() -> list[np.ndarray]:
        found, unknown = finish()
        for column, count in unknown.items():
            gauges.unknown.labels(column).inc(count)
        return found

    return scores


async def _ranked(
    request: Request, reader: messages.Reader, batcher: Batcher, gauges: Gauges
) -> Response:
    """Answer `POST /rank`."""
    body = await _body(request)
    began = time.perf_counter()
    asked = _read(reader, body)
    try:
        scores = await batcher(asked.raw)
    except OverloadedError as error:
        raise HTTPException(503, f"overloaded: {error}", {"Retry-After": "1"}) from None
    if not np.isfinite(scores).all():
        raise HTTPException(500, "the model's scores are not finite")
    seconds = time.perf_counter() - began
    gauges.seconds.observe(seconds)
    return Response(messages.answer(asked.ids, scores, seconds), media_type="application/json")


async def _body(request: Request) -> bytes:
    """Read a body, but no more than `LARGEST` bytes of it."""
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size > LARGEST:
            raise HTTPException(413, f"the body has more than {LARGEST} bytes: send fewer items")
        parts.append(part)
    return b"".join(parts)


def _read(reader: messages.Reader, body: bytes) -> messages.Asked:
    try:
        return reader(body)
    except ValidationError as error:
        found = error.errors(include_url=False, include_context=False, include_input=False)
        placed = [{**one, "loc": ("body", *one["loc"])} for one in found]
        raise RequestValidationError(placed) from None
