"""Captions from an OpenAI-compatible endpoint, such as vLLM: `POST {base_url}/chat/completions` with the picture."""

import asyncio
import base64
import hashlib
import json
import os
import random
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from types import ModuleType
from typing import Any
from urllib.parse import urlsplit

from fairhuman.data.caption.item import Caption, Captioner, CaptionItem
from fairhuman.data.caption.pace import RequestPacer, back_off, retry_after
from fairhuman.data.caption.settings import EndpointSettings
from fairhuman.data.caption.tokens import TokenBudget
from fairhuman.data.caption.vision import caption_from_answer, fill_prompt, load_picture
from fairhuman.data.pictures.encode import encode_jpeg
from fairhuman.detect.worker import Failure
from fairhuman.errors import DataError
from fairhuman.regions.boxes import shorten
from fairhuman.utils.parse import parse_json

_FATAL = {401: "the key isn't accepted", 402: "no credit is left", 403: "access isn't allowed"}
_RETRYABLE = (408, 409, 425, 429)  # and all from 500 on
_NO_QUOTA = "insufficient_quota"  # a 429 that waiting doesn't resolve


class _RetryableError(Exception):
    """A request that may succeed later; `wait` is the time in seconds that the endpoint asks for."""

    def __init__(self, reason: str, wait: float | None = None) -> None:
        super().__init__(reason)
        self.wait = wait


class _RefusedError(Exception):
    """A request that this endpoint rejects permanently."""


class EndpointCaptioner(Captioner):
    """Sends concurrent requests to an endpoint; the same record always makes the same request.

    Overload, server errors, lost connections, timeouts and unreadable answers are retried, after the time that the
    endpoint asks for or with exponential back-off; if all retries fail, the record fails. A rejected key, an unknown
    model or too many failures in a row end the run, so that a broken endpoint doesn't fail all records.

    Raises:
        DataError: the package or the key is missing.
    """

    def __init__(self, settings: EndpointSettings, budget: TokenBudget) -> None:
        self.name, self.batch_size = f"endpoint:{settings.model}", 4 * settings.concurrency
        self._settings, self._budget = settings, budget
        self._openai = _openai()
        self._key = _api_key(settings.api_key_env)
        self._random = random.Random()
        self._pacer = RequestPacer(settings.requests_per_minute, time.monotonic)
        self._failed_in_a_row = 0
        # The event loop runs in a separate thread, because the caller may have a running loop, as notebooks do.
        self._runner, self._thread = asyncio.Runner(), ThreadPoolExecutor(1)
        # Every option is set explicitly, because values in the environment aren't meant for this endpoint.
        self._client = self._openai.AsyncOpenAI(
            api_key=self._key or "none",
            base_url=settings.base_url,
            organization="",
            project="",
            timeout=settings.timeout,
            max_retries=0,
        )

    def caption(self, items: Sequence[CaptionItem]) -> list[Caption | Failure]:
        """The endpoint's caption for each item, or the reason for its failure.

        Raises:
            DataError: the endpoint rejects all requests, asks for too long a wait, or fails too often in a row.
        """
        try:
            return self._thread.submit(lambda: self._runner.run(self._caption_all(items))).result()
        except BaseExceptionGroup as group:  # the first error has cancelled all other requests
            raise group.exceptions[0] from None

    def close(self) -> None:
        """Close the connections."""
        if not self._client.is_closed():
            self._thread.submit(lambda: self._runner.run(self._client.close())).result()
            self._thread.submit(self._runner.close).result()
            self._thread.shutdown()

    async def _caption_all(self, items: Sequence[CaptionItem]) -> list[Caption | Failure]:
        slots = asyncio.Semaphore(self._settings.concurrency)

        async def one(item: CaptionItem) -> Caption | Failure:
            async with slots:
                return await self._caption_one(item)

        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one(item)) for item in items]
        return [task.result() for task in tasks]

    async def _caption_one(self, item: CaptionItem) -> Caption | Failure:
        jpeg = await asyncio.to_thread(self._jpeg, item)
        if isinstance(jpeg, Failure):
            return jpeg
        result = await self._request_with_retries(item, jpeg)
        self._failed_in_a_row = self._failed_in_a_row + 1 if isinstance(result, Failure) else 0
        if isinstance(result, Failure) and self._failed_in_a_row >= self._settings.failures_in_a_row:
            raise DataError(
                f"{self._address}: {self._failed_in_a_row} records in a row got no caption "
                f"(endpoint.failures_in_a_row); the last one: {result.reason}. Run the same command again to resume"
            )
        return result

    async def _request_with_retries(self, item: CaptionItem, jpeg: bytes) -> Caption | Failure:
        request = self._request(item, jpeg)
        for attempt in range(self._settings.retries + 1):
            await self._pacer.acquire()
            try:
                return await self._send(request)
            except _RefusedError as problem:
                return Failure(str(problem))
            except _RetryableError as problem:
                last = problem
            if attempt < self._settings.retries:
                await self._wait(attempt, last)
        return Failure(f"{last} ({self._settings.retries + 1} requests)")

    async def _wait(self, attempt: int, problem: _RetryableError) -> None:
        settings = self._settings
        requested = problem.wait or 0.0
        if requested > settings.longest_wait:
            raise DataError(
                f"{self._address}: asks to wait {requested:.0f} s, longer than endpoint.longest_wait = "
                f"{settings.longest_wait:g}. Run the same command again to resume"
            )
        self._pacer.pause(requested)
        await asyncio.sleep(back_off(attempt, settings.first_wait, settings.longest_wait, self._random))

    async def _send(self, request: dict[str, Any]) -> Caption | Failure:
        """Send one request.

        Raises:
            _RetryableError, _RefusedError: the request gave no caption.
            DataError: no request can succeed.
        """
        try:
            async with asyncio.timeout(self._settings.timeout):  # the client's own timeout restarts with every byte
                answer = await self._client.chat.completions.with_raw_response.create(**request)
        except (TimeoutError, self._openai.APITimeoutError):
            raise _RetryableError(f"no answer within {self._settings.timeout:g} s") from None
        except self._openai.APIStatusError as error:
            raise self._problem(error) from None
        except self._openai.APIConnectionError as error:
            raise _RetryableError(f"connection lost: {self._clean(error.__cause__ or error)}") from None
        return self._parse(answer.http_response.text)

    def _problem(self, error: Any) -> Exception:
        """The exception for a status other than 200."""
        status, body = error.status_code, error.body if isinstance(error.body, dict) else {}
        message = self._clean(body.get("message") or error.response.text)
        if status in _FATAL or body.get("code") == _NO_QUOTA:
            key = self._settings.api_key_env
            hint = f"the environment variable {key} holds the key" if key else "endpoint.api_key_env names no key"
            return DataError(f"{self._address}: {_FATAL.get(status, 'no quota is left')} ({status}; {hint}): {message}")
        if status == 404:
            return DataError(
                f"{self._address}: endpoint.model {self._settings.model!r} or the address isn't known (404): {message}"
            )
        if status in _RETRYABLE or status >= 500:
            return _RetryableError(f"status {status}: {message}", retry_after(error.response.headers))
        return _RefusedError(f"status {status}: {message}")

    def _parse(self, text: str) -> Caption | Failure:
        """The caption in the body of an answer."""
        try:
            body = parse_json(text)
        except ValueError:
            raise _RetryableError(f"answer isn't JSON: {self._clean(text)}") from None
        if not isinstance(body, dict) or body.get("error"):
            raise _RetryableError(f"answer is an error: {self._clean(json.dumps(body))}")
        try:
            choice = body["choices"][0]
            content, refusal = choice["message"].get("content"), choice["message"].get("refusal")
        except (LookupError, TypeError, AttributeError):
            raise _RetryableError(f"answer has no choices: {self._clean(text)}") from None
        if not isinstance(content, str) or not content.strip():
            raise _RetryableError(f"answer is empty: {self._clean(refusal or choice.get('finish_reason'))}")
        if choice.get("finish_reason") == "content_filter":
            raise _RefusedError("answer was filtered by the endpoint")
        return caption_from_answer(content, choice.get("finish_reason") == "length", self._budget)

    def _request(self, item: CaptionItem, jpeg: bytes) -> dict[str, Any]:
        """The request of a record; its idempotency key depends on record, model, prompt and settings only."""
        settings = self._settings
        prompt = fill_prompt(settings.prompt, self._budget, item.text)
        sampling: dict[str, Any] = {settings.limit_name: settings.max_new_tokens}
        if settings.temperature is not None:
            sampling["temperature"] = settings.temperature
        identity = json.dumps([item.key, settings.model, prompt, sampling]).encode()
        url = f"data:image/jpeg;base64,{base64.b64encode(jpeg).decode()}"
        content = [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": prompt}]
        return {
            "model": settings.model,
            "messages": [{"role": "user", "content": content}],
            "extra_headers": {"Idempotency-Key": hashlib.sha256(identity + jpeg).hexdigest()},
            **sampling,
        }

    def _jpeg(self, item: CaptionItem) -> bytes | Failure:
        picture = load_picture(item, self._settings.longest_side)
        if isinstance(picture, Failure):
            return picture
        return encode_jpeg(picture, self._settings.jpeg_quality, subsampling=2)

    @property
    def _address(self) -> str:
        return f"endpoint {urlsplit(self._settings.base_url).hostname}"  # leaves out a password in the address

    def _clean(self, message: Any) -> str:
        """The endpoint's message on one line, without the key."""
        text = " ".join(str(message).split())
        return shorten(text.replace(self._key, "...") if self._key else text, 200)


def _openai() -> ModuleType:
    try:
        import openai
    except ImportError as error:
        raise DataError(f"captions from an endpoint need openai: pip install 'fairhuman[data]' ({error})") from error
    return openai


def _api_key(variable: str | None) -> str:
    """The key, or "" if no variable is named."""
    if variable is None:
        return ""
    key = os.environ.get(variable, "").strip()
    if not key:
        raise DataError(f"endpoint.api_key_env: the environment variable {variable} isn't set")
    if not (key.isascii() and key.isprintable()):
        raise DataError(f"endpoint.api_key_env: the key in {variable} must consist of printable ASCII characters")
    return key
