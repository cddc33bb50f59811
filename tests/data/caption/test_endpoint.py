import asyncio
import base64
import io
import threading
import time
from collections.abc import Callable
from dataclasses import replace

import pytest
from PIL import Image
from pydantic import ValidationError

from fairhuman.data.caption.endpoint import EndpointCaptioner
from fairhuman.data.caption.item import Caption, CaptionItem
from fairhuman.data.caption.settings import EndpointSettings
from fairhuman.data.caption.tokens import TokenBudget
from fairhuman.data.pictures.stored import PictureError
from fairhuman.detect.worker import Failure
from fairhuman.errors import DataError
from helpers.caption_server import GOOD, Answer, endpoint, error, said

Items = Callable[..., CaptionItem]
Result = list[Caption | Failure]
QUICK = {"first_wait": 0.01, "timeout": 20.0, "retries": 2, "model": "m"}


def captions(url: str, budget: TokenBudget, items: list[CaptionItem], **settings: object) -> Result:
    with EndpointCaptioner(EndpointSettings(base_url=url, **(QUICK | settings)), budget) as captioner:
        return captioner.caption(items)


def test_a_second_close_does_nothing(budget: TokenBudget) -> None:
    with EndpointCaptioner(EndpointSettings(base_url="http://localhost:1", **QUICK), budget) as captioner:
        captioner.close()


def test_every_item_gets_its_own_answer_in_its_place(budget: TokenBudget, item: Items) -> None:
    gate = threading.Barrier(3)  # opens when three requests are there at once

    def answer(_: int) -> Answer:
        gate.wait(30)
        return said()

    with endpoint(answer) as (url, asked):
        found = captions(url, budget, [item(n) for n in range(9)], concurrency=3)
    assert found == [budget.caption(GOOD, "")] * 9
    assert len({one.key for one in asked}) == 9
    assert max(one.together for one in asked) == 3


def test_answers_go_back_to_whom_they_belong(budget: TokenBudget, item: Items) -> None:
    """The later an item, the sooner its answer; the answer says the size of the picture that was sent."""
    asked: list = []

    def answer(n: int) -> Answer:
        url = asked[n].body["messages"][0]["content"][0]["image_url"]["url"]
        width = Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2]))).width
        return replace(said(f"A man and {width} hats."), seconds=0.3 - width / 1000)

    with endpoint(answer) as (url, requests):
        asked = requests
        found = captions(url, budget, [item(n, size=(30 + 10 * n, 20)) for n in range(5)])
    assert [one.text for one in found if isinstance(one, Caption)] == [
        f"A man and {30 + 10 * n} hats." for n in range(5)
    ]


def test_the_request_has_question_picture_and_limits(budget: TokenBudget, item: Items) -> None:
    with endpoint(lambda _: said()) as (url, asked):
        prompt = "In {tokens}, {x}: {text}?"
        described = item(size=(200, 100), text="a {tokens}  man")
        captions(url, budget, [described], longest_side=50, max_new_tokens=33, prompt=prompt)
    body = asked[0].body
    picture, words = body["messages"][0]["content"]
    assert (body["model"], body["max_tokens"], body["temperature"]) == ("m", 33, 0.0)
    assert words["text"] == "In 75, {x}: a {tokens} man?"
    kind, _, data = picture["image_url"]["url"].partition(",")
    sent = Image.open(io.BytesIO(base64.b64decode(data)))
    assert (kind, sent.format, sent.size) == ("data:image/jpeg;base64", "JPEG", (50, 25))


def test_the_same_record_makes_the_same_request_after_a_kill(budget: TokenBudget, item: Items) -> None:
    with endpoint(lambda _: said()) as (url, asked):
        for _ in range(2):
            captions(url, budget, [item(1)])
        for changed in (item(2), replace(item(1), picture=item(2).picture), replace(item(1), key="other")):
            captions(url, budget, [changed])
        captions(url, budget, [item(1)], prompt="What is this?")
        captions(url, budget, [item(1)], model="other")
    assert asked[0].body == asked[1].body
    assert asked[0].key == asked[1].key
    assert len({one.key for one in asked}) == 6


@pytest.mark.parametrize(
    "first",
    [
        error(429),
        error(429, Retry_After="soon"),
        error(500),
        error(503, Retry_After="0"),
        Answer(drop=True),
        Answer(500, b"<html>oops", kind="text/html"),
        Answer(body=b"<html>hello</html>", kind="text/html"),
        Answer(body=b"{half"),
        Answer(body=b"[" * 100_000),
        Answer(body=b"\xff\xfe\x00"),
        Answer(body=b"null"),
        replace(error(200, "overloaded"), status=200),
        Answer(body=b'{"choices": []}'),
        Answer(body=b'{"choices": [{"message": null}]}'),
        said(""),
        said(None, refusal="I can't"),
        said([{"type": "text", "text": "hat"}]),
    ],
)
def test_temporary_errors_are_retried_and_then_reported(budget: TokenBudget, item: Items, first: Answer) -> None:
    with endpoint(lambda n: first if n < 2 else said()) as (url, asked):
        found = captions(url, budget, [item()])
    assert found == [budget.caption(GOOD, "")]
    assert len({one.key for one in asked}) == 1
    with endpoint(lambda _: first) as (url, asked):
        (failure,) = captions(url, budget, [item()])
    assert len(asked) == 3
    assert isinstance(failure, Failure)
    assert failure.reason.endswith("(3 requests)")
    assert len(failure.reason) < 300


def test_retry_after_holds_back_all_requests(budget: TokenBudget, item: Items) -> None:
    with endpoint(lambda n: error(429, Retry_After="0.5") if n == 0 else said()) as (url, asked):
        found = captions(url, budget, [item(n) for n in range(3)], concurrency=1)
    assert all(isinstance(one, Caption) for one in found)
    assert asked[1].time - asked[0].time >= 0.5
    assert asked[1].key == asked[0].key


def test_a_wait_that_is_too_long_ends_the_run(budget: TokenBudget, item: Items) -> None:
    with (
        endpoint(lambda _: error(429, Retry_After="3600")) as (url, asked),
        pytest.raises(DataError, match=r"asks to wait 3600 s, longer than endpoint\.longest_wait = 300"),
    ):
        captions(url, budget, [item()])
    assert len(asked) == 1


def test_no_answer_within_the_timeout_is_a_failure(budget: TokenBudget, item: Items) -> None:
    with endpoint(lambda _: replace(said(), seconds=60.0)) as (url, asked):
        found = captions(url, budget, [item()], timeout=0.3, retries=1)
    assert found == [Failure("no answer within 0.3 s (2 requests)")]
    assert len(asked) == 2


def test_an_answer_byte_by_byte_doesn_t_extend_the_timeout(budget: TokenBudget, item: Items) -> None:
    with endpoint(lambda _: replace(said(), seconds=0.1, drip=True)) as (url, _):
        found = captions(url, budget, [item()], timeout=0.5, retries=0)
    assert found == [Failure("no answer within 0.5 s (1 requests)")]


def test_an_unreachable_endpoint_is_a_failure(budget: TokenBudget, item: Items) -> None:
    with endpoint(lambda _: said()) as (url, _):
        pass
    (failure,) = captions(url, budget, [item()], retries=1)
    assert isinstance(failure, Failure)
    assert failure.reason.startswith("connection lost")


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (
            error(401, "bad key sk-secret"),
            r"127\.0\.0\.1: the key isn't accepted \(401; .*SOME_KEY holds the key\): bad",
        ),
        (error(403), "access isn't allowed"),
        (error(402), "no credit is left"),
        (error(404, "The model `m` does not exist."), r"endpoint\.model 'm' or the address isn't known \(404\)"),
        (error(429, code="insufficient_quota"), "no quota is left"),
    ],
)
def test_fatal_errors_end_the_run_and_hide_the_key(
    budget: TokenBudget, item: Items, monkeypatch: pytest.MonkeyPatch, answer: Answer, message: str
) -> None:
    monkeypatch.setenv("SOME_KEY", "sk-secret")
    with endpoint(lambda n: replace(answer, seconds=0.1 * (n > 0))) as (url, asked), pytest.raises(DataError) as caught:
        captions(url, budget, [item(n) for n in range(20)], api_key_env="SOME_KEY", concurrency=2)
    assert caught.match(message)
    assert "sk-secret" not in str(caught.value)
    assert asked[0].headers["authorization"] == "Bearer sk-secret"
    assert len(asked) <= 5


def test_keys_from_the_environment_are_not_sent(
    budget: TokenBudget, item: Items, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("OPENAI_API_KEY", "OPENAI_ORG_ID", "OPENAI_PROJECT_ID"):
        monkeypatch.setenv(name, "not-for-you")
    with endpoint(lambda _: said()) as (url, asked):
        captions(url, budget, [item()])
    assert "not-for-you" not in str(asked[0].headers)
    monkeypatch.delenv("SOME_KEY", raising=False)
    with pytest.raises(DataError, match="the environment variable SOME_KEY isn't set"):
        captions(url, budget, [item()], api_key_env="SOME_KEY")
    monkeypatch.setenv("SOME_KEY", "kéy")
    with pytest.raises(DataError, match="printable ASCII") as caught:
        captions(url, budget, [item()], api_key_env="SOME_KEY")
    assert "kéy" not in str(caught.value)


def test_a_rejected_request_is_not_retried(budget: TokenBudget, item: Items) -> None:
    with endpoint(lambda _: error(400, "picture too large")) as (url, asked):
        found = captions(url, budget, [item()])
    assert found == [Failure("status 400: picture too large")]
    assert len(asked) == 1


def test_a_broken_endpoint_does_not_use_up_the_records(budget: TokenBudget, item: Items) -> None:
    with (
        endpoint(lambda n: said() if n == 2 else error(500)) as (url, asked),
        pytest.raises(DataError, match=r"4 records in a row got no caption \(endpoint\.failures_in_a_row\)"),
    ):
        captions(url, budget, [item(n) for n in range(50)], retries=0, failures_in_a_row=4, concurrency=1)
    assert len(asked) == 7


def test_a_bad_picture_fails_its_record_without_a_request(budget: TokenBudget, item: Items) -> None:
    def broken() -> Image.Image:
        raise PictureError("picture is cut off or damaged", "a.jpg")

    with endpoint(lambda _: said()) as (url, asked):
        found = captions(url, budget, [replace(item(), picture=broken), item(1)], failures_in_a_row=1)
    assert found[0] == Failure("picture can't be read: picture is cut off or damaged (a.jpg)")
    assert isinstance(found[1], Caption)
    assert len(asked) == 1


def test_requests_are_spread_over_the_minute(budget: TokenBudget, item: Items) -> None:
    with endpoint(lambda _: said()) as (url, _):
        start = time.monotonic()
        captions(url, budget, [item(n) for n in range(4)], requests_per_minute=600)
    assert time.monotonic() - start >= 0.3


def test_answers_become_clean_captions(budget: TokenBudget, item: Items) -> None:
    answers = [said(' "A man\nin a hat."  '), said("A hat. A man with a", "length"), said("A hat. " * 60)]
    with endpoint(lambda n: answers[n]) as (url, _):
        quoted, unfinished, long = captions(url, budget, [item(n) for n in range(3)], concurrency=1)
    assert isinstance(quoted, Caption)
    assert (quoted.text, quoted.cut) == ("A man in a hat.", False)
    assert isinstance(unfinished, Caption)
    assert (unfinished.text, unfinished.cut) == ("A hat.", True)
    assert isinstance(long, Caption)
    assert (max(long.tokens) <= 77, long.cut) == (True, True)


def test_settings_that_can_not_work_are_refused() -> None:
    with pytest.raises(ValidationError, match="must be http"):
        EndpointSettings(base_url="localhost:8000")
    with pytest.raises(ValidationError, match="must have no user and password"):
        EndpointSettings(base_url="https://me:pass1@host/v1")


def test_it_works_inside_a_running_event_loop(budget: TokenBudget, item: Items) -> None:
    """As in a notebook."""

    async def cell() -> list[Caption | Failure]:
        with endpoint(lambda _: said()) as (url, _):
            return captions(url, budget, [item()])

    (found,) = asyncio.run(cell())
    assert isinstance(found, Caption)
