"""The pages of a study and what they ask for."""

import re
import secrets
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import NoReturn

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import Route

from fairhuman.errors import FairHumanError
from fairhuman.study.api import AnswerBody, JoinBody, describe
from fairhuman.study.limits import RateLimit
from fairhuman.study.shown import TYPES, ShownStudy
from fairhuman.study.store import StudyStore, token_digest
from fairhuman.study.study import PICTURES
from fairhuman.study.texts import load_texts
from fairhuman.web.app import RefusedError, create_app, page, read_json

ADMIN_TOKEN = re.compile(r"[A-Za-z0-9_-]{16,}")
PICTURE_CACHE = "private, max-age=604800, immutable"
# A person who hurries asks for some ten pictures a second; after a lost network all waiting answers come at once.
PARTICIPANT_LIMIT = (600, 20.0)  # requests at once, and a second from then on
STRANGER_LIMIT = (30, 0.5)  # wrong links from one address
JOIN_LIMIT = (100, 0.1)  # new participants from one address; a whole class may come at once


@dataclass(frozen=True)
class Access:
    """Who may come in.

    admin_token: opens the page of progress; independent of all participants' tokens.
    open_link: whether a visitor without a link gets the next free number.
    hosts: names that the server may be called by, beside localhost and any IP address.
    """

    admin_token: str
    open_link: bool = False
    hosts: tuple[str, ...] = ()

    @classmethod
    def grant(cls, admin_token: str | None, open_link: bool, hosts: tuple[str, ...]) -> "Access":
        """With the token that was given, or a new one; a token of another form is a FairHumanError."""
        if admin_token is not None and not ADMIN_TOKEN.fullmatch(admin_token):
            raise FairHumanError("the admin token must have 16 or more letters, digits, - and _; the given one has not")
        return cls(admin_token or secrets.token_urlsafe(32), open_link, hosts)


def create_study_app(
    study: ShownStudy, store: StudyStore, access: Access, texts: Mapping[str, str] | None = None
) -> Starlette:
    """The app that shows a study; the store is closed with it."""
    pages = _Pages(study, store, access, load_texts() if texts is None else texts)
    return create_app(pages.routes(), access.hosts, store.close)


class _Pages:
    """Routes over the store. Those that aren't `async` run in threads, so that a slow disk holds up nobody else."""

    def __init__(self, study: ShownStudy, store: StudyStore, access: Access, texts: Mapping[str, str]) -> None:
        self.study, self.store, self.access, self.texts = study, store, access, texts
        self.pictures = [study.pictures_of(number) for number in range(len(study.participants))]
        self.admin = token_digest(access.admin_token)
        self.participants = RateLimit(*PARTICIPANT_LIMIT)
        self.strangers = RateLimit(*STRANGER_LIMIT)
        self.joining = RateLimit(*JOIN_LIMIT)

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
        ]

    def start(self, _: Request) -> Response:
        if self.access.open_link:
            return self._page("study_consent.html", root="")
        return self._page("study_invitation.html")

    def description(self, _: Request) -> Response:
        return JSONResponse(describe(self.study.settings.title))

    async def join(self, request: Request) -> Response:
        if not self.access.open_link:
            raise RefusedError(404, "This study is by invitation.")
        joined = await read_json(request, JoinBody)
        self.joining.take(_address(request))
        await run_in_threadpool(self.store.join, joined.token)
        return JSONResponse({})

    def participant(self, request: Request) -> Response:
        number = self._participant(request)
        root = f"/p/{request.path_params['token']}"
        if not self.store.has_consented(number):
            return self._page("study_consent.html", root=root)
        questions = [question.model_dump(mode="json") for question in self.study.settings.questions]
        return self._page("study_trial.html", root=root, questions=questions)

    def consent(self, request: Request) -> Response:
        self.store.consent(self._participant(request))
        return RedirectResponse(f"/p/{request.path_params['token']}", 303)

    def trials(self, request: Request) -> Response:
        """All trials at once: a page that has lost its network goes on as far as it has pictures."""
        number = self._participant(request)
        if not self.store.has_consented(number):
            raise RefusedError(403, "Agree to take part first.")
        answers = [
            {"trial": answer.trial, "question": answer.question, "choice": answer.choice}
            for answer in self.store.answers(number)
        ]
        return JSONResponse(
            {"trials": [asdict(trial) for trial in self.study.participants[number]], "answers": answers}
        )

    async def answer(self, request: Request) -> Response:
        given = await read_json(request, AnswerBody)

        def keep() -> int:
            number = self._participant(request)
            return self.store.answer(number, given.key, given.trial, given.question, given.choice, given.seconds)

        return JSONResponse({"answered": await run_in_threadpool(keep)})

    def picture(self, request: Request) -> Response:
        """A picture out of this participant's trials; no date, no tag, nothing that differs between methods."""
        name = request.path_params["name"]
        if name not in self.pictures[self._participant(request)]:
            raise RefusedError(404, "There is no such picture.")
        path = self.study.folder / PICTURES / name
        try:
            content = path.read_bytes()
        except OSError as error:
            raise RefusedError(404, "This picture is gone.") from error
        return Response(content, media_type=TYPES[path.suffix.lower()], headers={"Cache-Control": PICTURE_CACHE})

    def progress(self, request: Request) -> Response:
        if not secrets.compare_digest(token_digest(request.path_params["token"]), self.admin):
            self._refuse_stranger(request)
        return page(
            "study_admin.html",
            title=self.study.settings.title,
            people=self.store.progress(),
            places=len(self.study.participants),
        )

    def _participant(self, request: Request) -> int:
        """Whose link it is; each link has a limit of its own, as a whole class may share one address."""
        token = request.path_params["token"]
        number = self.store.participant_of(token)
        if number is None:
            self._refuse_stranger(request)
        self.participants.take(str(number))
        return number

    def _refuse_stranger(self, request: Request) -> NoReturn:
        self.strangers.take(_address(request))
        raise RefusedError(404, "Nobody has this link. Is it complete?")

    def _page(self, template: str, **context: object) -> Response:
        return page(template, 200, title=self.study.settings.title, texts=self.texts, **context)


def _address(request: Request) -> str:
    return request.client.host if request.client else ""
