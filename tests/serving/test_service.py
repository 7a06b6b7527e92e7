"""The service: the model's own ranking, every trouble answered by the right status, a clean end."""

import asyncio
import json
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request

import polars as pl
import pytest
from served import ask, elsewhere, groups, message, raw

import dnr_jax
from dnr_jax.serving import files, online, service


@pytest.fixture(scope="module")
def app(packed, engine):
    return service.make(dnr_jax.load(packed), engine, limit=4)


def told(app, *bodies):
    """Ask one after the other: status and the decoded answer of each."""

    async def main():
        return [await ask(app, "/rank", body) for body in bodies]

    return [(status, json.loads(content)) for status, _, content in asyncio.run(main())]


def test_the_whole_way_gives_one_ranking(packed, exported, app, candidates, tmp_path):
    table = tmp_path / "candidates.parquet"
    candidates.write_parquet(table)
    files.score_file(dnr_jax.Scorer(packed), table, tmp_path / "ranked.parquet")
    scored = groups(pl.read_parquet(tmp_path / "ranked.parquet"))
    requests = groups(candidates)
    _, exports = elsewhere(exported, [raw(own) for own in requests])
    answers = told(app, *map(message, requests))
    for mine, artefact, (status, served) in zip(scored, exports, answers, strict=True):
        assert status == 200
        assert [one["item"] for one in served["items"]] == mine["item_id"].to_list()
        assert [one["item_id"] for one in artefact] == mine["item_id"].to_list()
        for one, score in zip(served["items"], mine["score"], strict=True):
            assert one["score"] == pytest.approx(score, abs=1e-5)  # batches of other sizes


def test_fields_may_be_a_list_of_names_and_values(app, candidates):
    whole = message(groups(candidates)[0])

    def listed(fields):
        return [{"name": name, "value": value} for name, value in fields.items()]

    items = [one | {"fields": listed(one["fields"])} for one in whole["items"]]
    other = whole | {"fields": listed(whole["fields"]), "items": items, "session": "as Metarank"}
    [(_, first), (status, second)] = told(app, whole, other)
    assert status == 200
    assert first["items"] == second["items"]


def without(body, name):
    return {key: value for key, value in body.items() if key != name}


def with_item(body, **changes):
    first, *others = body["items"]
    return body | {"items": [first, others[0] | changes, *others[1:]]}


@pytest.mark.parametrize(
    ("change", "place"),
    [
        (lambda b: without(b, "items"), ["body", "items"]),
        (lambda b: without(b, "id"), ["body", "id"]),
        (lambda b: b | {"items": []}, ["body", "items"]),
        (lambda b: b | {"items": b["items"] * 3}, ["body", "items"]),
        (lambda b: b | {"user": 1.5}, ["body", "user"]),
        (lambda b: b | {"history": "3"}, ["body", "history"]),
        (lambda b: b | {"fields": {"c_weekday": [1]}}, ["body", "fields", "c_weekday"]),
        (lambda b: with_item(b, score="high"), ["body", "items", 1, "score"]),
        (lambda b: with_item(b, score=-1e300), ["body", "items", 1, "score"]),
        (lambda b: with_item(b, score=None), ["body", "items", 1, "score"]),
        (lambda b: with_item(b, id=None), ["body", "items", 1, "id"]),
        (
            lambda b: with_item(b, fields={"i_price": "dear"}),
            ["body", "items", 1, "fields", "i_price"],
        ),
        (
            lambda b: with_item(b, fields={"i_tags": [1, {}]}),
            ["body", "items", 1, "fields", "i_tags", 1],
        ),
        (lambda b: with_item(b, fields=[{"name": "i_price"}]), ["body", "items", 1, "fields"]),
        (
            lambda b: with_item(b, fields=[{"name": ["i_price"], "value": 1}]),
            ["body", "items", 1, "fields"],
        ),
        (lambda b: b | {"fields": [{"name": ["a"], "value": 1}]}, ["body", "fields"]),
        (lambda b: b'{"id": 1, ', ["body"]),
        (lambda b: json.dumps(with_item(b, score=float("nan"))).encode(), None),
    ],
)
def test_a_malformed_body_names_the_field(app, candidates, change, place):
    [(status, answer)] = told(app, change(message(groups(candidates)[0])))
    assert status == 422
    [error] = answer["detail"]
    assert place is None or error["loc"] == place


def test_a_body_without_end_is_not_read(app):
    [(status, answer)] = told(app, b" " * (service.LARGEST + 1))
    assert status == 413
    assert "send fewer items" in answer["detail"]


def test_a_client_that_hangs_up_is_no_fault_of_the_service(packed, engine):
    app = service.make(dnr_jax.load(packed), engine, limit=2)

    async def main():
        answer = await ask(app, "/rank", b'{"id": 1, ', hangs_up=True)
        return answer, await ask(app, "/metrics")

    (status, _, content), (_, _, metrics) = asyncio.run(main())
    assert (status, content) == (499, b"")
    counted = [line for line in metrics.decode().splitlines() if "requests_total{" in line]
    assert counted == ['dnr_requests_total{status="499"} 1.0']


def test_overload_is_answered_at_once(packed, engine, candidates, monkeypatch):
    computing, go, true = threading.Event(), threading.Event(), online.Engine.begin

    def slow(self, requests):
        finish = true(self, requests)

        def later():
            computing.set()
            assert go.wait(20)
            return finish()

        return later

    monkeypatch.setattr(online.Engine, "begin", slow)
    app = service.make(dnr_jax.load(packed), engine, limit=2)
    body = message(groups(candidates)[0])

    async def main():
        first = asyncio.create_task(ask(app, "/rank", body))
        await asyncio.to_thread(computing.wait, 20)
        waiting = [asyncio.create_task(ask(app, "/rank", body)) for _ in range(2)]
        await asyncio.sleep(0.1)
        refused = await ask(app, "/rank", body)  # while the others wait
        go.set()
        done = await asyncio.gather(first, *waiting)
        return refused, done, await ask(app, "/metrics")

    refused, done, (_, _, metrics) = asyncio.run(main())
    assert refused[0] == 503
    assert refused[1][b"retry-after"] == b"1"
    assert (
        json.loads(refused[2])["detail"] == "overloaded: the queue of waiting requests is full (2)"
    )
    assert [status for status, _, _ in done] == [200] * 3
    lines = metrics.decode().splitlines()
    assert 'dnr_requests_total{status="200"} 3.0' in lines
    assert 'dnr_requests_total{status="503"} 1.0' in lines
    assert "dnr_waiting 0.0" in lines
    assert 'dnr_batch_requests_bucket{le="2.0"} 2.0' in lines


def test_scores_that_are_no_numbers_are_an_error_of_the_service(
    packed, engine, candidates, monkeypatch
):
    def broken(self, requests):
        found, unknown = true(self, requests)()
        return lambda: ([scores * float("nan") for scores in found], unknown)

    true = online.Engine.begin
    monkeypatch.setattr(online.Engine, "begin", broken)
    app = service.make(dnr_jax.load(packed), engine, limit=2)
    [(status, answer)] = told(app, message(groups(candidates)[0]))
    assert status == 500
    assert "scores are not finite" in answer["detail"]


def test_the_schema_names_the_model_s_own_fields(app):
    _, _, content = asyncio.run(ask(app, "/openapi.json"))
    body = json.loads(content)["paths"]["/rank"]["post"]["requestBody"]
    text = json.dumps(body)
    for name in ("i_price", "i_tags", "c_weekday", "u_city", "history"):
        assert f'"{name}"' in text


def test_a_port_that_is_taken_is_told_at_once(call, packed):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        code, out, err = call("serve", packed, "--port", port)
    assert (code, out) == (1, "")
    assert f"cannot listen on 127.0.0.1:{port} (Address already in use): choose" in err


def test_the_command_answers_when_it_says_so_and_ends_cleanly(packed, candidates, tmp_path):
    command = [sys.executable, "-m", "dnr_jax.cli", "serve", packed, "--port", "0", "--batch", "1"]
    with subprocess.Popen(
        [*map(str, command), "--cache", str(tmp_path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        try:
            said = [process.stdout.readline() for _ in range(2)]
            assert "1 shapes compiled: batches (1,), lists (8,)" in said[0], said
            url = said[1].split()[-1]
            with urllib.request.urlopen(f"{url}/health") as answer:
                assert json.load(answer) == {"status": "ready", "reranker": "prm"}
            body = json.dumps(message(groups(candidates)[0])).encode()
            with urllib.request.urlopen(f"{url}/rank", body) as answer:
                assert len(json.load(answer)["items"]) == len(groups(candidates)[0])
            port = int(url.rpartition(":")[2])
            with socket.create_connection(("127.0.0.1", port)) as late:
                head = f"POST /rank HTTP/1.1\r\nHost: a\r\nContent-Length: {len(body)}\r\n\r\n"
                late.sendall(head.encode() + body[:9])
                time.sleep(0.3)
                process.send_signal(signal.SIGTERM)
                time.sleep(0.3)
                late.sendall(body[9:])  # the service is stopping, and finishes it
                assert late.recv(99).startswith(b"HTTP/1.1 200 OK")
            assert process.wait(20) == 0
            assert process.stdout.read() == ""
        finally:
            process.kill()
