"""Answers leave in one piece, as uvicorn's own protocol would have written them in two."""

import asyncio

import pytest
from uvicorn import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from dnr_jax.serving.one_write import OneWriteProtocol

BODY = b'{"took": 1}'


class Transport(asyncio.Transport):
    """Notes what is written, and whether it was closed."""

    def __init__(self):
        super().__init__()
        self.written, self.closed = [], False

    def write(self, data):
        assert not self.closed
        self.written.append(bytes(data))

    def close(self):
        self.closed = True

    def is_closing(self):
        return self.closed

    def resume_reading(self):
        pass


async def app(scope, receive, send):
    headers = [(b"content-length", str(len(BODY)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": BODY})


def answered(kind, head, *, lost=False):
    """Let a protocol answer one request; returns its transport."""
    transport = Transport()

    async def main():
        config = Config(app, lifespan="off", date_header=False, log_config=None)
        config.load()
        protocol = kind(config=config, server_state=ServerState(), app_state={})
        protocol.connection_made(transport)
        protocol.data_received(b"GET / HTTP/1.1\r\nHost: a\r\n" + head + b"\r\n")
        if lost:
            transport.close()
        for _ in range(5):
            await asyncio.sleep(0)

    asyncio.run(main())
    return transport


@pytest.mark.parametrize(("head", "closed"), [(b"", False), (b"Connection: close\r\n", True)])
def test_head_and_body_are_one_write(head, closed):
    theirs, mine = (answered(kind, head) for kind in (HttpToolsProtocol, OneWriteProtocol))
    assert len(theirs.written) == 2  # or this protocol is no longer of any use
    assert mine.written == [b"".join(theirs.written)]
    assert mine.written[0].endswith(BODY)
    assert mine.closed is theirs.closed is closed


def test_nothing_is_written_to_a_connection_that_is_lost():
    assert answered(OneWriteProtocol, b"", lost=True).written == []
