"""The rules of a review: assignment of pictures, valid decisions, undo. All state is in the database."""

import secrets
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import chain, islice

from sqlalchemy import ColumnElement, Connection, Engine, delete, insert, select

from fairhuman.data.review.events import (
    DROP,
    EVENTS,
    KEEP,
    LEASES,
    SECRETS,
    UNDO,
    Decision,
    standing_decisions,
    standing_reviews,
)
from fairhuman.data.review.settings import REASONS, ReviewSettings, clean_text
from fairhuman.data.review.summary import ReviewSummary, summarize
from fairhuman.utils.files import cache_folder, writing
from fairhuman.utils.secret_file import derived_token, read_secret
from fairhuman.web.app import RefusedError
from fairhuman.web.database import transaction

SECRET = "review.key"  # in the user's cache, not beside the pictures, which may be a stranger's
AHEAD = 2  # pictures assigned to a reviewer: the one on the page, and the next


@dataclass(frozen=True, slots=True)
class WorkList:
    """The next pictures of a reviewer.

    Attributes:
        keys: keys of the assigned pictures, in the order to show; empty if nothing is left for this reviewer.
        total, done: number of pictures in the folder, and of those with all their reviews.
        own: number of decisions of this reviewer.
        elsewhere: number of pictures that are assigned to other reviewers and may become free again.
    """

    keys: tuple[str, ...]
    total: int
    done: int
    own: int
    elsewhere: int


class ReviewStore:
    """Decisions on pictures, in a database with the tables of `events` that several processes may share.

    `prompts` holds every picture's prompt by key, in the order of review; `clock` returns seconds since 1970.
    """

    def __init__(
        self,
        engine: Engine,
        prompts: Mapping[str, str],
        settings: ReviewSettings,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.engine, self.prompts, self.settings, self._clock = engine, prompts, settings, clock

    def token(self) -> str:
        """The secret in the address of all pages; it survives a restart, so that open pages keep working.

        It is derived from a secret of this user and one of the database. So who made the folder, and with it perhaps
        the database, doesn't know it.

        Raises:
            DataError: the user's secret is damaged.
            FairHumanError: it can't be written.
        """
        own = cache_folder() / SECRET
        with writing(own, "; set the environment variable FAIRHUMAN_CACHE to use another folder"):
            own.parent.mkdir(parents=True, exist_ok=True)
            secret = read_secret(own, "making it", "delete the file, which gives all reviews new addresses")
        with transaction(self.engine) as connection:
            found = connection.execute(select(SECRETS.c.token)).scalar()
            if found is None:
                found = secrets.token_urlsafe(32)
                connection.execute(insert(SECRETS).values(token=found))
            return derived_token(secret, f"review {found}")

    def summary(self) -> ReviewSummary:
        """Counts of the standing decisions."""
        with transaction(self.engine) as connection:
            decisions = standing_decisions(connection)
        return summarize(decisions, self.prompts, self.settings.reviews_per_picture)

    def work(self, reviewer: str) -> WorkList:
        """Assign the next pictures, and renew the reviewer's leases."""
        with transaction(self.engine) as connection:
            return self._assign(connection, reviewer)

    def decide(
        self, reviewer: str, key: str, action: str, prompt: str | None, reason: str | None, shown: str | None = None
    ) -> WorkList:
        """Store a decision to `keep` or `drop` a picture; storing it again has no effect.

        A kept picture may have another prompt (None = unchanged), a dropped one has a reason, one of `REASONS`. `shown`
        is the prompt on which it was decided (None = not known).

        Raises:
            RefusedError: unknown picture (404), invalid decision (422), or a decision that comes too late (409).
        """
        if key not in self.prompts:
            raise RefusedError(404, "There is no such picture in this data set.")
        if shown not in (None, self.prompts[key]):
            now = self.prompts[key]
            raise RefusedError(409, f"The prompt was changed meanwhile, to “{now}”. Your decision was not saved.")
        prompt = self._final_prompt(key, action, prompt)
        if (action == DROP) != (reason is not None) or reason not in (None, *REASONS):
            raise RefusedError(422, f"To drop a picture, give one of the reasons {', '.join(REASONS)}.")
        with transaction(self.engine) as connection:
            decisions = standing_decisions(connection, EVENTS.c.key == key)
            own = next((decision for decision in decisions if decision.reviewer == reviewer), None)
            if own is None:
                self._check_free(connection, reviewer, key, decisions)
                self._add(connection, reviewer, key, action=action, prompt=prompt, reason=reason)
            elif (own.action, own.prompt, own.reason) != (action, prompt, reason):
                raise RefusedError(409, f"You have already decided on this picture ({own.action}); undo that first.")
            return self._assign(connection, reviewer)

    def undo(self, reviewer: str) -> tuple[WorkList, Decision]:
        """Undo the reviewer's last standing decision; its picture is shown first again.

        Raises:
            RefusedError: there is no decision to undo (409).
        """
        with transaction(self.engine) as connection:
            own = standing_decisions(connection, EVENTS.c.reviewer == reviewer)
            last = next((decision for decision in reversed(own) if decision.key in self.prompts), None)
            if last is None:
                raise RefusedError(409, "You have nothing to undo.")
            self._add(connection, reviewer, last.key, action=UNDO, undoes=last.id)
            return self._assign(connection, reviewer, first=last.key), last

    def _final_prompt(self, key: str, action: str, prompt: str | None) -> str | None:
        original = self.prompts[key]
        if action != KEEP:
            return None
        try:
            edited = clean_text(original if prompt is None else prompt)
        except ValueError as error:
            raise RefusedError(422, f"The prompt {error}.") from error
        if not edited:
            raise RefusedError(422, "The prompt is empty: write one, or drop the picture.")
        if edited == " ".join(original.split()):
            return original
        if len(edited) > self.settings.max_prompt:
            limit = self.settings.max_prompt
            raise RefusedError(422, f"The prompt has {len(edited)} characters; the limit is {limit}.")
        return edited

    def _check_free(self, connection: Connection, reviewer: str, key: str, decisions: list[Decision]) -> None:
        needed = self.settings.reviews_per_picture
        if len(decisions) >= needed:
            names = ", ".join(decision.reviewer for decision in decisions)
            raise RefusedError(409, f"This picture has already been decided by {names}. Your decision was not saved.")
        query = select(LEASES.c.reviewer).where(LEASES.c.key == key, self._runs(self._clock()))
        holders = set(connection.execute(query).scalars()) - {reviewer}
        if len(decisions) + len(holders) >= needed:
            raise RefusedError(409, "This picture now belongs to another reviewer. Your decision was not saved.")

    def _add(self, connection: Connection, reviewer: str, key: str, **values: object) -> None:
        connection.execute(insert(EVENTS).values(at=self._clock(), reviewer=reviewer, key=key, **values))

    def _assign(self, connection: Connection, reviewer: str, first: str | None = None) -> WorkList:
        now, needed = self._clock(), self.settings.reviews_per_picture
        connection.execute(delete(LEASES).where(~self._runs(now)))
        leases = connection.execute(select(LEASES.c.key, LEASES.c.reviewer)).all()
        held = {key for key, holder in leases if holder == reviewer}
        leased = Counter(key for key, holder in leases if holder != reviewer)
        standing = standing_reviews(connection)
        own = {key for key, author in standing if author == reviewer}
        reviews = Counter(key for key, _ in standing)
        done = {key for key, count in reviews.items() if count >= needed}
        open_keys = [key for key in self.prompts if key not in own and key not in done]
        free = [key for key in open_keys if reviews[key] + leased[key] < needed]
        renewed = [key for key in free if key in held and key != first]
        new = (key for key in free if key not in held and key != first)
        keys = tuple(islice(chain([first] if first in free else [], renewed, new), AHEAD))
        self._lease(connection, reviewer, keys, now + self.settings.lease_seconds)
        return WorkList(
            keys=keys,
            total=len(self.prompts),
            done=len(done & self.prompts.keys()),
            own=len(own & self.prompts.keys()),
            elsewhere=len(open_keys) - len(free),
        )

    def _runs(self, now: float) -> ColumnElement[bool]:
        """Whether a lease runs; one that ends later than leases can end comes from elsewhere and counts for nothing."""
        return (LEASES.c.until > now) & (LEASES.c.until <= now + self.settings.lease_seconds)

    def _lease(self, connection: Connection, reviewer: str, keys: tuple[str, ...], until: float) -> None:
        """Replace all leases of the reviewer."""
        connection.execute(delete(LEASES).where(LEASES.c.reviewer == reviewer))
        if keys:
            rows = [{"key": key, "reviewer": reviewer, "until": until} for key in keys]
            connection.execute(insert(LEASES), rows)
