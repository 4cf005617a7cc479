"""The HTTP endpoint that senders push records to: `POST /v1/events/<feed>[/<record>]`."""

from __future__ import annotations

import asyncio
import functools
import gzip
import io
import threading
import time
import zlib
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from callhouse.errors import CallhouseError
from callhouse.live import collectors, signing
from callhouse.live.intake import Counts, Intake, Push, UnavailableError
from callhouse.live.signing import UnauthorizedError
from callhouse.settings import Settings
from callhouse.sources import pushes, registry
from callhouse.sources.contract import Pushed, Record, RefusedError

LARGEST_BODY = 8 << 20
# At once: each may hold a body before it is known whose it is.
MOST_REQUESTS = 256
# Beyond this a body is read by another thread, so that others are answered meanwhile.
SMALL_BODY = 64 << 10
# Requests without valid credentials that an address is told about, each minute.
MOST_ATTEMPTS = 20
MOST_ADDRESSES = 10_000
FIREHOSE_ID = "X-Amz-Firehose-Request-Id"
KEY_HEADERS = ("X-API-Key", "X-Amz-Firehose-Access-Key")
BEARER = "bearer "

Say = Callable[[str], None]


class ProblemError(Exception):
    """What a sender is told in the place of counts."""

    def __init__(self, status: int, error: str, message: str, retry_after: int | None = None):
        super().__init__(message)
        self.status, self.error, self.retry_after = status, error, retry_after


class Attempts:
    """Bad attempts by address within the last minute. Good requests are never kept away."""

    def __init__(self, say: Say) -> None:
        self.say = say
        self._times: dict[str, deque[float]] = {}
        self._untold = 0
        self._told_at = 0.0

    def is_one_too_many(self, address: str) -> bool:
        """Count an attempt."""
        now = time.monotonic()
        if len(self._times) >= MOST_ADDRESSES and address not in self._times:
            self._times = {who: times for who, times in self._times.items() if times[-1] > now - 60}
            if len(self._times) >= MOST_ADDRESSES:
                self._times.clear()
        times = self._times.setdefault(address, deque(maxlen=MOST_ATTEMPTS + 1))
        times.append(now)
        self._untold += 1
        if now - self._told_at > 60:  # addresses are personal data: only how many
            self.say(f"{self._untold} requests without valid credentials")
            self._untold, self._told_at = 0, now
        return len(times) > MOST_ATTEMPTS and times[0] > now - 60


class Receiver:
    """Checks requests and hands them to the intakes of their feeds."""

    def __init__(self, settings: Settings, intakes: Sequence[Intake], say: Say = print) -> None:
        self.intakes = {intake.name: intake for intake in intakes}
        self.secrets = {name: settings.secret(signing.secret_name(name)) for name in self.intakes}
        self.attempts = Attempts(say)
        self.app = Starlette(
            routes=[
                Route("/v1/events/{feed}", self.events, methods=["POST"]),
                Route("/v1/events/{feed}/{record}", self.events, methods=["POST"]),
                Route("/health", self.health, methods=["GET"]),
            ]
        )

    async def health(self, request: Request) -> Response:  # noqa: ARG002
        """That it listens."""
        return JSONResponse({"status": "ok"})

    async def events(self, request: Request) -> Response:
        """Answer a push with counts, after the commit, or with what is wrong with it."""
        try:
            counts = await self._received(request)
        except ProblemError as problem:
            answer = {"error": problem.error, "message": str(problem)}
            wait = problem.retry_after
            headers = {} if wait is None else {"Retry-After": str(wait)}
            return _response(request, problem.status, answer, headers)
        except ClientDisconnect:
            return Response(status_code=499)  # nobody reads it
        return _response(request, 200, vars(counts), {})

    async def _received(self, request: Request) -> Counts:
        intake = self.intakes.get(request.path_params["feed"])
        if intake is None:
            raise self._unauthorized(request, 404, "not_found", "no such feed receives pushes")
        try:
            self._check_credentials(request, intake)
            body = await _body(request)
            self._check(request, intake, body)
        except UnauthorizedError as error:
            name = "unauthorized" if error.status == 401 else "forbidden"
            raise self._unauthorized(request, error.status, name, str(error)) from None
        record = _record(intake.feed, request.path_params.get("record"))
        media = request.headers.get("Content-Type", "").partition(";")[0].strip().lower()
        # Only after the signature, which is of the bytes as they were sent.
        encoding = request.headers.get("Content-Encoding", "identity").strip().lower()
        if encoding == "gzip":
            body = await run_in_threadpool(_unpacked, body)
        elif encoding != "identity":
            raise ProblemError(
                415, "unsupported_media_type", "send the body as it is or as Content-Encoding: gzip"
            )
        take = functools.partial(intake.feed.take, record, body, media)
        try:
            items = take() if len(body) <= SMALL_BODY else await run_in_threadpool(take)
        except pushes.MediaError as refusal:
            raise ProblemError(415, "unsupported_media_type", str(refusal)) from None
        except RefusedError as refusal:
            raise ProblemError(422, "unreadable", str(refusal)) from None
        push = Push(record, items, body)
        try:
            intake.submit(push)
            return await asyncio.wrap_future(push.answer)
        except UnavailableError as problem:
            raise ProblemError(503, "unavailable", str(problem), problem.seconds) from None
        except RefusedError as refusal:
            raise ProblemError(422, "unreadable", str(refusal)) from None
        except RecursionError:
            raise ProblemError(422, "unreadable", "a record is nested too deeply") from None
        except Exception:  # noqa: BLE001  # the intake has said which; a sender must be answered
            raise ProblemError(500, "failed", "the request cannot be landed") from None

    def _check_credentials(self, request: Request, intake: Intake) -> None:
        """UnauthorizedError before the body is read, where it can be told."""
        if intake.how.authorization == "api_key" and signing.SIGNATURE not in request.headers:
            signing.verify_key(self.secrets[intake.name], _key(request))
        elif not request.headers.get(signing.SIGNATURE):
            signing.verify(self.secrets[intake.name], {}, b"")

    def _check(self, request: Request, intake: Intake, body: bytes) -> None:
        if signing.SIGNATURE in request.headers:
            signing.verify(self.secrets[intake.name], request.headers, body)

    def _unauthorized(
        self, request: Request, status: int, error: str, message: str
    ) -> ProblemError:
        address = request.client.host if request.client else ""
        if self.attempts.is_one_too_many(address):
            return ProblemError(429, "too_many_attempts", "too many bad attempts: wait", 60)
        return ProblemError(status, error, message)


def _key(request: Request) -> str | None:
    for name in KEY_HEADERS:
        if found := request.headers.get(name):
            return found
    given = request.headers.get("Authorization", "")
    return given[len(BEARER) :] if given.lower().startswith(BEARER) else None


async def _body(request: Request) -> bytes:
    length = request.headers.get("Content-Length", "")
    body = bytearray()
    if length.isdigit() and int(length) > LARGEST_BODY:
        raise _too_large()
    async for chunk in request.stream():
        body += chunk
        if len(body) > LARGEST_BODY:
            raise _too_large()
    return bytes(body)


def _too_large() -> ProblemError:
    message = f"a request holds at most {LARGEST_BODY >> 20} MiB, unpacked too"
    return ProblemError(413, "too_large", message)


def _unpacked(body: bytes) -> bytes:
    """A gzip body's content, of which no more is made than a request may hold."""
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(body)) as packed:
            content = packed.read(LARGEST_BODY + 1)
    except (EOFError, OSError, zlib.error):
        raise ProblemError(422, "unreadable", "the body is no whole gzip") from None
    if len(content) > LARGEST_BODY:
        raise _too_large()
    return content


def _record(feed: Pushed, name: str | None) -> Record:
    known = pushes.kinds(feed)
    if name is None and len(known) == 1:
        return next(iter(known.values()))
    if name is None or name not in known:
        raise ProblemError(404, "not_found", f"say what is pushed: …/{feed.file.stem}/<record>, "
                           f"one of {', '.join(known)}")  # fmt: skip
    return known[name]


def _response(
    request: Request, status: int, answer: dict[str, Any], headers: dict[str, str]
) -> Response:
    if request_id := request.headers.get(FIREHOSE_ID):  # it takes nothing else for an answer
        answer |= {"requestId": request_id, "timestamp": int(time.time() * 1000)}
        if status != 200:
            answer["errorMessage"] = answer["message"]
    return JSONResponse(answer, status_code=status, headers=headers)


# ------------------------------------------------------------------------------ running
def intakes(settings: Settings, say: Say = print) -> list[Intake]:
    """An intake per feed that receives pushes."""
    found = [
        Intake(settings, feed, how, say)
        for feed in registry.feeds(settings)
        if isinstance(feed, Pushed) and (how := registry.receive(feed))
    ]
    if not found:
        raise CallhouseError("nothing to receive: no feed has `receive` in its YAML")
    return found


def serve(
    settings: Settings, found: Sequence[Intake], stop: threading.Event, say: Say = print,
    port: int | None = None,
) -> None:  # fmt: skip
    """Listen until SIGTERM or Ctrl-C; what was sent by then is landed and answered."""
    threads = [threading.Thread(target=intake.run, args=(stop,)) for intake in found]
    threads.append(threading.Thread(target=collectors.keep, args=(settings, stop, say)))
    for thread in threads:
        thread.start()
    try:
        uvicorn.run(
            Receiver(settings, found, say).app,
            host=settings.host,
            port=port or settings.receiver_port,
            log_level="warning",
            access_log=False,  # addresses of senders
            server_header=False,
            proxy_headers=False,
            limit_concurrency=MOST_REQUESTS,
            timeout_graceful_shutdown=8,
        )
    finally:
        stop.set()
        for thread in threads:
            thread.join()
