"""Captions by an OpenAI-compatible endpoint, such as vLLM: `POST {base_url}/chat/completions` with the picture."""

import asyncio
import base64
import hashlib
import io
import json
import os
import random
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from types import ModuleType, TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

from fairhuman.data.caption.item import Caption, CaptionItem
from fairhuman.data.caption.pace import RequestPacer, asked_to_wait, back_off
from fairhuman.data.caption.settings import EndpointSettings
from fairhuman.data.caption.tokens import TokenBudget
from fairhuman.data.caption.vision import answered, load_picture, question
from fairhuman.detect.worker import Failure
from fairhuman.errors import DataError
from fairhuman.regions.boxes import shorten

_ENDS_THE_RUN = {401: "the key isn't accepted", 402: "no credit is left", 403: "access isn't allowed"}
_TRY_AGAIN = (408, 409, 425, 429)  # and all from 500 on
_NO_QUOTA = "insufficient_quota"  # a 429 that no waiting helps


class _TryAgainError(Exception):
    """A request that may do better later; `wait` is what the endpoint asks for, in seconds."""

    def __init__(self, reason: str, wait: float | None = None) -> None:
        super().__init__(reason)
        self.wait = wait


class _RefusedError(Exception):
    """A request that this endpoint won't ever answer."""


class EndpointCaptioner:
    """Asks the endpoint about many pictures at once; the same record always makes the same request.

    Overload, server errors, lost connections, time-outs and answers that can't be read are tried again, after the time
    that the endpoint asks for or with growing waits; what is left is a failure of that record. A refused key, an
    unknown model or too many failures in a row end the run, so that a broken endpoint doesn't use up the records.

    Raises:
        DataError: the package or the key is missing.

    """

    def __init__(self, settings: EndpointSettings, budget: TokenBudget) -> None:
        self.name, self.batch_size = f"endpoint:{settings.model}", 4 * settings.concurrency
        self._settings, self._budget = settings, budget
        self._openai = _openai()
        self._key = _api_key(settings.api_key_env)
        self._chance = random.Random()
        self._pace = RequestPacer(settings.requests_per_minute, time.monotonic)
        self._failed_in_a_row = 0
        # In a thread of its own: whoever calls may have a running loop, as notebooks do.
        self._runner, self._thread = asyncio.Runner(), ThreadPoolExecutor(1)
        # Told about everything: what the client finds in the environment isn't meant for this endpoint.
        self._client = self._openai.AsyncOpenAI(
            api_key=self._key or "none",
            base_url=settings.base_url,
            organization="",
            project="",
            timeout=settings.timeout,
            max_retries=0,
        )

    def caption(self, items: Sequence[CaptionItem]) -> list[Caption | Failure]:
        """The endpoint's answer for each item, or why there is none.

        Raises:
            DataError: the endpoint refuses everything, asks for too long a wait, or hasn't answered for long.

        """
        try:
            return self._thread.submit(lambda: self._runner.run(self._caption_all(items))).result()
        except BaseExceptionGroup as group:  # the first one has ended all other requests
            raise group.exceptions[0] from None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the connections."""
        self._thread.submit(lambda: self._runner.run(self._client.close())).result()
        self._thread.submit(self._runner.close).result()
        self._thread.shutdown()

    async def _caption_all(self, items: Sequence[CaptionItem]) -> list[Caption | Failure]:
        places = asyncio.Semaphore(self._settings.concurrency)

        async def one(item: CaptionItem) -> Caption | Failure:
            async with places:
                return await self._caption_one(item)

        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one(item)) for item in items]
        return [task.result() for task in tasks]

    async def _caption_one(self, item: CaptionItem) -> Caption | Failure:
        jpeg = await asyncio.to_thread(self._jpeg, item)
        if isinstance(jpeg, Failure):
            return jpeg
        result = await self._persist(item, jpeg)
        self._failed_in_a_row = self._failed_in_a_row + 1 if isinstance(result, Failure) else 0
        if isinstance(result, Failure) and self._failed_in_a_row >= self._settings.failures_in_a_row:
            raise DataError(
                f"{self._where}: {self._failed_in_a_row} records in a row got no caption "
                f"(endpoint.failures_in_a_row); the last one: {result.reason}. The same command goes on"
            )
        return result

    async def _persist(self, item: CaptionItem, jpeg: bytes) -> Caption | Failure:
        request = self._request(item, jpeg)
        for attempt in range(self._settings.retries + 1):
            await self._pace.turn()
            try:
                return await self._ask(request)
            except _RefusedError as problem:
                return Failure(str(problem))
            except _TryAgainError as problem:
                last = problem
            if attempt < self._settings.retries:
                await self._wait(attempt, last)
        return Failure(f"{last} ({self._settings.retries + 1} requests)")

    async def _wait(self, attempt: int, problem: _TryAgainError) -> None:
        settings = self._settings
        asked = problem.wait or 0.0
        if asked > settings.longest_wait:
            raise DataError(
                f"{self._where}: asks to wait {asked:.0f} s, longer than endpoint.longest_wait = "
                f"{settings.longest_wait:g}. The same command goes on"
            )
        self._pace.hold(asked)
        await asyncio.sleep(back_off(attempt, settings.first_wait, settings.longest_wait, self._chance))

    async def _ask(self, request: dict[str, Any]) -> Caption | Failure:
        """One request.

        Raises:
            _TryAgainError, _RefusedError: it gave no caption.
            DataError: no request would.

        """
        try:
            async with asyncio.timeout(self._settings.timeout):  # the client's own starts again with every byte
                answer = await self._client.chat.completions.with_raw_response.create(**request)
        except (TimeoutError, self._openai.APITimeoutError):
            raise _TryAgainError(f"no answer within {self._settings.timeout:g} s") from None
        except self._openai.APIStatusError as error:
            raise self._problem(error) from None
        except self._openai.APIConnectionError as error:
            raise _TryAgainError(f"connection lost: {self._clean(error.__cause__ or error)}") from None
        return self._read(answer.http_response.text)

    def _problem(self, error: Any) -> Exception:
        """What a status other than 200 means."""
        status, body = error.status_code, error.body if isinstance(error.body, dict) else {}
        said = self._clean(body.get("message") or error.response.text)
        if status in _ENDS_THE_RUN or body.get("code") == _NO_QUOTA:
            key = self._settings.api_key_env
            hint = f"the environment variable {key} holds the key" if key else "endpoint.api_key_env names no key"
            return DataError(
                f"{self._where}: {_ENDS_THE_RUN.get(status, 'no quota is left')} ({status}; {hint}): {said}"
            )
        if status == 404:
            return DataError(
                f"{self._where}: endpoint.model {self._settings.model!r} or the address isn't known (404): {said}"
            )
        if status in _TRY_AGAIN or status >= 500:
            return _TryAgainError(f"status {status}: {said}", asked_to_wait(error.response.headers))
        return _RefusedError(f"status {status}: {said}")

    def _read(self, text: str) -> Caption | Failure:
        """The caption in the body of an answer."""
        try:
            body = json.loads(text)
        except (ValueError, RecursionError):
            raise _TryAgainError(f"answer isn't JSON: {self._clean(text)}") from None
        if not isinstance(body, dict) or body.get("error"):
            raise _TryAgainError(f"answer is an error: {self._clean(json.dumps(body))}")
        try:
            choice = body["choices"][0]
            content, refusal = choice["message"].get("content"), choice["message"].get("refusal")
        except (LookupError, TypeError, AttributeError):
            raise _TryAgainError(f"answer has no choices: {self._clean(text)}") from None
        if not isinstance(content, str) or not content.strip():
            raise _TryAgainError(f"answer is empty: {self._clean(refusal or choice.get('finish_reason'))}")
        if choice.get("finish_reason") == "content_filter":
            raise _RefusedError("answer was filtered by the endpoint")
        return answered(content, choice.get("finish_reason") == "length", self._budget)

    def _request(self, item: CaptionItem, jpeg: bytes) -> dict[str, Any]:
        """The same for the same record, model, question and settings: an endpoint that knows the key answers once."""
        settings = self._settings
        asked = question(settings.prompt, self._budget, item.text)
        sampling: dict[str, Any] = {settings.limit_name: settings.max_new_tokens}
        if settings.temperature is not None:
            sampling["temperature"] = settings.temperature
        named = json.dumps([item.key, settings.model, asked, sampling]).encode()
        url = f"data:image/jpeg;base64,{base64.b64encode(jpeg).decode()}"
        content = [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": asked}]
        return {
            "model": settings.model,
            "messages": [{"role": "user", "content": content}],
            "extra_headers": {"Idempotency-Key": hashlib.sha256(named + jpeg).hexdigest()},
            **sampling,
        }

    def _jpeg(self, item: CaptionItem) -> bytes | Failure:
        picture = load_picture(item, self._settings.longest_side)
        if isinstance(picture, Failure):
            return picture
        target = io.BytesIO()
        picture.save(target, "JPEG", quality=self._settings.jpeg_quality)
        return target.getvalue()

    @property
    def _where(self) -> str:
        return f"endpoint {urlsplit(self._settings.base_url).hostname}"  # a password in the address stays there

    def _clean(self, said: Any) -> str:
        """What the endpoint said, on one line, without the key."""
        text = " ".join(str(said).split())
        return shorten(text.replace(self._key, "...") if self._key else text, 200)


def _openai() -> ModuleType:
    try:
        import openai
    except ImportError as error:
        raise DataError(f"captions by an endpoint need openai: pip install 'fairhuman[data]' ({error})") from error
    return openai


def _api_key(variable: str | None) -> str:
    """The key, or "" where none is asked for."""
    if variable is None:
        return ""
    key = os.environ.get(variable, "").strip()
    if not key:
        raise DataError(f"endpoint.api_key_env: the environment variable {variable} isn't set")
    if not (key.isascii() and key.isprintable()):
        raise DataError(f"endpoint.api_key_env: the key in {variable} holds signs that can't be sent")
    return key
