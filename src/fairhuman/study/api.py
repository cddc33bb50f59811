"""Request bodies of a study's pages, and the OpenAPI description of its routes."""

from typing import Annotated, Any

from pydantic import Field

from fairhuman.config import Settings
from fairhuman.study.study import MOST_SHOWN

TOKEN = r"^[A-Za-z0-9_-]{43}$"  # 32 bytes in base64url
MAX_SECONDS = 86_400.0


class JoinBody(Settings):
    """Request of a visitor to take part; the browser generates the token."""

    token: str = Field(pattern=TOKEN)


class AnswerBody(Settings):
    """Request with an answer."""

    key: str = Field(pattern=r"^[A-Za-z0-9-]{16,64}$", description="unique per answer; the same if an answer is resent")
    trial: Annotated[int, Field(strict=True, ge=0, le=2**31 - 1)]
    question: str = Field(max_length=31)
    choice: Annotated[int, Field(strict=True, ge=0, lt=MOST_SHOWN)] | None = Field(
        description="position from left to right; null: a tie, or ranks are given"
    )
    ranks: list[Annotated[int, Field(strict=True, ge=1, le=MOST_SHOWN)]] | None = Field(
        default=None, max_length=MOST_SHOWN, description="rank of each picture from left to right; equal ones are tied"
    )
    seconds: float = Field(strict=True, ge=0, le=MAX_SECONDS)


def openapi_document(title: str) -> dict[str, Any]:
    """OpenAPI 3.1 description of the pages and their requests."""
    token = {"name": "token", "in": "path", "required": True, "schema": {"type": "string"}}
    name = {"name": "name", "in": "path", "required": True, "schema": {"type": "string"}}
    saved = {"type": "object", "required": ["answered"], "properties": {"answered": {"type": "integer", "minimum": 1}}}
    page = _answer("A page", {"text/html": {"schema": {"type": "string"}}})
    picture = _answer("The picture", {"image/*": {}})
    lost = {"404": _problem("Unknown link"), "429": _problem("Too many unknown links, or too many requests")}
    return {
        "openapi": "3.1.0",
        "info": {"title": title, "version": "1"},
        "paths": {
            "/": {"get": {"responses": {"200": page}}},
            "/health": {"get": {"responses": {"200": _answer("The server is running", _json({"type": "object"}))}}},
            "/api/join": _post(JoinBody, "A new participant", {"type": "object"}, _refusals(404, 409, 429)),
            "/p/{token}": {"get": {"parameters": [token], "responses": {"200": page, **lost}}},
            "/p/{token}/consent": {
                "post": {
                    "parameters": [token],
                    "responses": {"303": {"description": "To the study"}, **lost, "403": _problem("Foreign page")},
                }
            },
            "/p/{token}/api/trials": {
                "get": {
                    "parameters": [token],
                    "responses": {"200": _answer("Trials", _json(_TRIALS)), "403": _problem("No consent"), **lost},
                }
            },
            "/p/{token}/api/answers": {
                **_post(AnswerBody, "The answer is saved", saved, {**_refusals(403, 409), **lost}),
                "parameters": [token],
            },
            "/p/{token}/pictures/{name}": {"get": {"parameters": [token, name], "responses": {"200": picture, **lost}}},
        },
    }


_CHOICE: dict[str, Any] = {"type": ["integer", "null"]}
_RANKS: dict[str, Any] = {"type": ["array", "null"], "items": {"type": "integer"}}
_TRIALS: dict[str, Any] = {
    "type": "object",
    "required": ["trials", "answers"],
    "properties": {
        "trials": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["prompt", "pictures", "zooms"],
                "properties": {
                    "prompt": {"type": ["string", "null"]},
                    "pictures": {"type": "array", "items": {"type": "string"}},
                    "zooms": {"type": "array", "items": {"type": "array", "items": {"type": "string"}}},
                },
                "additionalProperties": False,
            },
        },
        "answers": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["trial", "question", "choice"],
                "properties": {
                    "trial": {"type": "integer"},
                    "question": {"type": "string"},
                    "choice": _CHOICE,
                    "ranks": _RANKS,
                },
                "additionalProperties": False,
            },
        },
    },
    "additionalProperties": False,
}


def _post(body: type[Settings], done: str, answer: dict[str, Any], refusals: dict[str, Any]) -> dict[str, Any]:
    content = _json(body.model_json_schema())
    always = _refusals(403, 413, 415, 422)
    return {
        "post": {
            "requestBody": {"required": True, "content": content},
            "responses": {"200": _answer(done, _json(answer)), **always, **refusals},
        }
    }


def _refusals(*statuses: int) -> dict[str, Any]:
    return {str(status): _problem("Refused, nothing was changed") for status in statuses}


def _problem(description: str) -> dict[str, Any]:
    schema = {"type": "object", "required": ["message"], "properties": {"message": {"type": "string"}}}
    return _answer(description, {**_json(schema), "text/html": {"schema": {"type": "string"}}})


def _answer(description: str, content: dict[str, Any]) -> dict[str, Any]:
    return {"description": description, "content": content}


def _json(schema: dict[str, Any]) -> dict[str, Any]:
    return {"application/json": {"schema": schema}}
