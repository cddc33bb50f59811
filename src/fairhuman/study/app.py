"""The web app of a study: pages for participants and researcher, and their requests."""

import logging
import re
import secrets
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NoReturn

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import Route

from fairhuman.errors import FairHumanError
from fairhuman.study.api import AnswerBody, JoinBody, openapi_document
from fairhuman.study.limits import RateLimit
from fairhuman.study.ranks import JOIN
from fairhuman.study.shown import TYPES, ShownStudy
from fairhuman.study.store import MAX_CHANGES, StudyStore, token_digest
from fairhuman.study.study import Answer
from fairhuman.study.texts import load_texts
from fairhuman.utils.digest import DamageError
from fairhuman.web.app import RefusedError, create_app, page, read_json
from fairhuman.web.connections import limited_as

ADMIN_TOKEN = re.compile(r"[A-Za-z0-9_-]{16,}")
PICTURE_CACHE = "private, max-age=604800, immutable"
# A fast participant loads about ten pictures per second; after a network outage all queued answers arrive at once.
PARTICIPANT_LIMIT = (600, 20.0)  # burst, and requests per second
STRANGER_LIMIT = (30, 0.5)  # unknown links from one address, or one /64 of IPv6
JOIN_LIMIT = (100, 0.1)  # new participants from one address; the burst is at most half of the study's places


@dataclass(frozen=True)
class Access:
    """Access rules.

    Attributes:
        admin_token: opens the progress page; independent of participants' tokens.
        open_link: whether visitors without a link get the next free participant number.
        hosts: accepted host names, besides localhost and any IP address.
        site: public address such as https://study.example.org, from whose pages alone its requests may come.
    """

    admin_token: str
    open_link: bool = False
    hosts: tuple[str, ...] = ()
    site: str | None = None

    @classmethod
    def grant(
        cls, admin_token: str | None, open_link: bool, hosts: tuple[str, ...], site: str | None = None
    ) -> "Access":
        """Access with the given admin token, or a new one.

        Raises:
            FairHumanError: the token is too short or has other characters.
        """
        if admin_token is not None and not ADMIN_TOKEN.fullmatch(admin_token):
            raise FairHumanError("the admin token must be at least 16 letters, digits, - or _; the given one isn't")
        return cls(admin_token or secrets.token_urlsafe(32), open_link, hosts, site)


def create_study_app(
    study: ShownStudy, store: StudyStore, access: Access, texts: Mapping[str, str] | None = None
) -> Starlette:
    """Create the web app of a study; it closes the store on shutdown."""
    pages = _Pages(study, store, access, load_texts() if texts is None else texts)
    return create_app(pages.routes(), access.hosts, store.close, access.site)


class _Pages:
    """Route handlers. Those that aren't `async` run in threads, so that a slow disk doesn't block other requests."""

    def __init__(self, study: ShownStudy, store: StudyStore, access: Access, texts: Mapping[str, str]) -> None:
        self.study, self.store, self.access, self.texts = study, store, access, texts
        self.pictures = [study.pictures_of(number) for number in range(len(study.participants))]
        self.admin = token_digest(access.admin_token)
        self.damaged: set[str] = set()  # pictures that were logged as damaged
        self.participants = RateLimit(*PARTICIPANT_LIMIT)
        self.strangers = RateLimit(*STRANGER_LIMIT)
        burst, per_second = JOIN_LIMIT
        self.joining = RateLimit(min(burst, max(2, len(study.participants) // 2)), per_second)

    def routes(self) -> list[Route]:
        return [
            Route("/", self.start),
            Route("/api.json", self.description),
            Route("/api/join", self.join, methods=["POST"]),
            Route("/p/{token}", self.participant),
            Route("/p/{token}/consent", self.consent, methods=["POST"]),
            Route("/p/{token}/api/trials", self.trials),
            Route("/p/{token}/api/answers", self.answer, methods=["POST"]),
            Route("/p/{token}/pictures/{name}", self.picture),
            Route("/admin/{token}", self.progress),
            Route("/admin/{token}/places/{number}/free", self.free, methods=["POST"]),
        ]

    def start(self, _: Request) -> Response:
        if self.access.open_link:
            return self._page("study_consent.html", root="")
        return self._page("study_invitation.html")

    def description(self, _: Request) -> Response:
        return JSONResponse(openapi_document(self.study.settings.title))

    async def join(self, request: Request) -> Response:
        if not self.access.open_link:
            raise RefusedError(404, "This study is by invitation.")
        joined = await read_json(request, JoinBody)
        await run_in_threadpool(self.store.join, joined.token, lambda: self.joining.take(_address(request)))
        return JSONResponse({})

    def participant(self, request: Request) -> Response:
        number = self._participant(request)
        root = f"/p/{request.path_params['token']}"
        if not self.store.has_consented(number):
            return self._page("study_consent.html", root=root)
        questions = [question.model_dump(mode="json") for question in self.study.settings.questions]
        ranked = self.study.settings.ranked
        return self._page("study_trial.html", root=root, questions=questions, ranked=ranked, changes=MAX_CHANGES)

    def consent(self, request: Request) -> Response:
        self.store.consent(self._participant(request))
        return RedirectResponse(f"/p/{request.path_params['token']}", 303)

    def trials(self, request: Request) -> Response:
        """All trials at once, so that a page without network can continue with the pictures it has."""
        number = self._participant(request)
        if not self.store.has_consented(number):
            raise RefusedError(403, "Please agree to take part first.")
        answers = [
            {"trial": answer.trial, "question": answer.question, "choice": answer.choice, **_ranks(answer)}
            for answer in self.store.answers(number)
        ]
        return JSONResponse(
            {"trials": [asdict(trial) for trial in self.study.participants[number]], "answers": answers}
        )

    async def answer(self, request: Request) -> Response:
        given = await read_json(request, AnswerBody)

        def keep() -> int:
            number, token = self._participant(request), request.path_params["token"]
            return self.store.answer(
                number, given.key, given.trial, given.question, given.choice, given.seconds, token, given.ranks
            )

        return JSONResponse({"answered": await run_in_threadpool(keep)})

    def picture(self, request: Request) -> Response:
        """A picture from this participant's trials, without headers that could differ between methods."""
        name = request.path_params["name"]
        if name not in self.pictures[self._participant(request)]:
            raise RefusedError(404, "There is no such picture.")
        try:
            content = self.study.picture(name)
        except OSError as error:
            raise RefusedError(404, "This picture is missing.") from error
        except DamageError as error:
            if name not in self.damaged:
                self.damaged.add(name)
                logging.getLogger(__name__).error("%s", error)
            raise RefusedError(404, "This picture is damaged.") from error
        kind = TYPES[Path(name).suffix.lower()]
        return Response(content, media_type=kind, headers={"Cache-Control": PICTURE_CACHE})

    def progress(self, request: Request) -> Response:
        self._check_admin(request)
        return page(
            "study_admin.html",
            title=self.study.settings.title,
            people=self.store.progress(),
            places=len(self.study.participants),
            minutes=f"{self.study.settings.place_minutes:g}",
            root=f"/admin/{request.path_params['token']}",
        )

    def free(self, request: Request) -> Response:
        """Take the place of a visitor without an answer."""
        self._check_admin(request)
        places = {str(number): number for number in range(len(self.study.participants))}
        number = places.get(request.path_params["number"])
        if number is None:
            raise RefusedError(404, "There is no such place in this study.")
        self.store.free(number)
        return RedirectResponse(f"/admin/{request.path_params['token']}", 303)

    def _check_admin(self, request: Request) -> None:
        if not secrets.compare_digest(token_digest(request.path_params["token"]), self.admin):
            self._refuse_stranger(request)

    def _participant(self, request: Request) -> int:
        """Participant of the link. Rate limits are per link, because a whole class may share one address."""
        token = request.path_params["token"]
        number = self.store.participant_of(token)
        if number is None:
            self._refuse_stranger(request)
        self.participants.take(str(number))
        return number

    def _refuse_stranger(self, request: Request) -> NoReturn:
        self.strangers.take(_address(request))
        raise RefusedError(404, "This link is not valid, or has ended. Please check that it is complete.")

    def _page(self, template: str, **context: object) -> Response:
        return page(template, 200, title=self.study.settings.title, texts=self.texts, **context)


def _ranks(answer: Answer) -> dict[str, list[int]]:
    """The ranks of an answer that has some, for the page."""
    return {} if answer.ranks is None else {"ranks": list(map(int, answer.ranks.split(JOIN)))}


def _address(request: Request) -> str:
    return limited_as(request.client.host) if request.client else ""
