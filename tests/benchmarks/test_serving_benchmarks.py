"""Smoke modes of what measures models at work; the load test, against a service of a few lines."""

import asyncio
import json
import threading

import pytest

from benchmarks import exports, harness, score_file, serving


def smoke(module, folder):
    path = folder / "rows.json"
    module.main(harness.parser("").parse_args(["--smoke", "--json", str(path)]))
    return json.loads(path.read_text())["rows"]


def test_a_file_is_measured_against_the_bare_program(tmp_path):
    bare, *tables = smoke(score_file, tmp_path)
    assert (bare["path"], bare["candidates"], bare["of bare"]) == ("bare", 1024 * 50, 1)
    assert [row["path"] for row in tables] == ["file", "history once"]
    for row in tables:
        assert row["candidates"] == bare["candidates"]
        assert row["of bare"] == pytest.approx(row["candidates/s"] / bare["candidates/s"])


def test_an_export_is_compared_with_its_model(tmp_path):
    [row] = smoke(exports, tmp_path)
    assert row["platforms"] == "cpu, cuda, tpu"
    assert row["largest difference"] == 0


async def answer(reader, writer):
    """Rank nothing, and refuse every third request."""
    turn = 0
    while head := await reader.read(2**16):
        assert head.startswith(b"POST /rank")
        turn += 1
        await asyncio.sleep(0.002)
        line = b"503 Service Unavailable" if turn % 3 == 0 else b"200 OK"
        writer.write(b"HTTP/1.1 " + line + b"\r\nContent-Length: 2\r\n\r\n{}")
    writer.close()


@pytest.mark.parametrize("load", [serving.Load(3), serving.Load(2, 100.0)])
def test_a_load_counts_answers_and_times_them_from_when_they_were_due(load, monkeypatch):
    monkeypatch.setattr(serving, "WARM_SECONDS", 0.1)
    port, ready, done = [], threading.Event(), threading.Event()

    async def serve():
        server = await asyncio.start_server(answer, "127.0.0.1", 0)
        port.append(server.sockets[0].getsockname()[1])
        ready.set()
        await asyncio.to_thread(done.wait, 30)
        server.close()

    thread = threading.Thread(target=asyncio.run, args=(serve(),))
    thread.start()
    assert ready.wait(30)
    try:
        row = serving.put(port[0], load, 0.4)
    finally:
        done.set()
        thread.join()
    assert 2 <= row["p50 ms"] <= row["p99 ms"]
    assert row["503"] > 0
    assert row["other"] == 0
    most = load.clients / 0.002
    assert 0 < row["answered/s"] < (2 * load.rate if load.rate else most)
