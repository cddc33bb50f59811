"""The rules of a review: who gets which picture, what a decision may be, and undo. All of it is in the database."""

import secrets
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import chain, islice

from sqlalchemy import Connection, Engine, delete, insert, select

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
from fairhuman.web.app import RefusedError
from fairhuman.web.database import transaction

AHEAD = 2  # pictures that a reviewer has in hand: the one on the page, and the next


@dataclass(frozen=True, slots=True)
class WorkList:
    """What a reviewer sees next.

    Attributes:
        keys: of the pictures in hand, the one to show first; none where nothing is left for this reviewer.
        total, done: pictures of the folder, and those with all their reviews.
        own: decisions of this reviewer.
        elsewhere: pictures that other reviewers have in hand, and that may come back.

    """

    keys: tuple[str, ...]
    total: int
    done: int
    own: int
    elsewhere: int


class ReviewStore:
    """Decisions on pictures in a database that several processes may share.

    Args:
        engine: with the tables of `events`.
        prompts: prompt by key of every picture, in the order of review.
        settings: of the review.
        clock: seconds since 1970.

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
        """The secret that pages send back; the same after a restart, so that open pages go on."""
        with transaction(self.engine) as connection:
            found = connection.execute(select(SECRETS.c.token)).scalar()
            if found is None:
                found = secrets.token_urlsafe(32)
                connection.execute(insert(SECRETS).values(token=found))
            return str(found)

    def summary(self) -> ReviewSummary:
        """Counts of what stands now."""
        with transaction(self.engine) as connection:
            decisions = standing_decisions(connection)
        return summarize(decisions, self.prompts, self.settings.reviews_per_picture)

    def work(self, reviewer: str) -> WorkList:
        """Hand out the next pictures, and renew what the reviewer has in hand."""
        with transaction(self.engine) as connection:
            return self._hand_out(connection, reviewer)

    def decide(self, reviewer: str, key: str, action: str, prompt: str | None, reason: str | None) -> WorkList:
        """Store a decision; the same one sent again changes nothing.

        Args:
            reviewer: a clean name.
            key: of the picture.
            action: `keep` or `drop`.
            prompt: of a picture that is kept; None = as it was.
            reason: one of `REASONS`, of a picture that is dropped.

        Raises:
            RefusedError: unknown picture (404), a decision that breaks a rule (422), or that comes too late (409).

        """
        if key not in self.prompts:
            raise RefusedError(404, "There is no such picture in this data set.")
        prompt = self._final_prompt(key, action, prompt)
        if (action == DROP) != (reason is not None) or reason not in (None, *REASONS):
            raise RefusedError(422, f"A picture is dropped for one of the reasons {', '.join(REASONS)}.")
        with transaction(self.engine) as connection:
            decisions = standing_decisions(connection, EVENTS.c.key == key)
            own = next((decision for decision in decisions if decision.reviewer == reviewer), None)
            if own is None:
                self._check_free(connection, reviewer, key, decisions)
                self._add(connection, reviewer, key, action=action, prompt=prompt, reason=reason)
            elif (own.action, own.prompt, own.reason) != (action, prompt, reason):
                raise RefusedError(409, f"You have already decided on this picture ({own.action}); undo that first.")
            return self._hand_out(connection, reviewer)

    def undo(self, reviewer: str) -> tuple[WorkList, Decision]:
        """Take back the reviewer's last decision that stands; its picture comes first again.

        Raises:
            RefusedError: there is none (409).

        """
        with transaction(self.engine) as connection:
            own = standing_decisions(connection, EVENTS.c.reviewer == reviewer)
            last = next((decision for decision in reversed(own) if decision.key in self.prompts), None)
            if last is None:
                raise RefusedError(409, "You have nothing to undo.")
            self._add(connection, reviewer, last.key, action=UNDO, undoes=last.id)
            return self._hand_out(connection, reviewer, first=last.key), last

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
            longest = self.settings.max_prompt
            raise RefusedError(422, f"The prompt has {len(edited)} characters, {longest} are the most.")
        return edited

    def _check_free(self, connection: Connection, reviewer: str, key: str, decisions: list[Decision]) -> None:
        needed = self.settings.reviews_per_picture
        if len(decisions) >= needed:
            names = ", ".join(decision.reviewer for decision in decisions)
            raise RefusedError(409, f"This picture has already been decided by {names}. Your decision was not saved.")
        query = select(LEASES.c.reviewer).where(LEASES.c.key == key, LEASES.c.until > self._clock())
        holders = set(connection.execute(query).scalars()) - {reviewer}
        if len(decisions) + len(holders) >= needed:
            raise RefusedError(409, "This picture has gone to another reviewer meanwhile. Your decision was not saved.")

    def _add(self, connection: Connection, reviewer: str, key: str, **values: object) -> None:
        connection.execute(insert(EVENTS).values(at=self._clock(), reviewer=reviewer, key=key, **values))

    def _hand_out(self, connection: Connection, reviewer: str, first: str | None = None) -> WorkList:
        now, needed = self._clock(), self.settings.reviews_per_picture
        connection.execute(delete(LEASES).where(LEASES.c.until <= now))
        leases = connection.execute(select(LEASES.c.key, LEASES.c.reviewer)).all()
        held = {key for key, holder in leases if holder == reviewer}
        lent = Counter(key for key, holder in leases if holder != reviewer)
        made = standing_reviews(connection)
        own = {key for key, author in made if author == reviewer}
        reviews = Counter(key for key, _ in made)
        done = {key for key, count in reviews.items() if count >= needed}
        wanted = [key for key in self.prompts if key not in own and key not in done]
        free = [key for key in wanted if reviews[key] + lent[key] < needed]
        mine = [key for key in free if key in held and key != first]
        others = (key for key in free if key not in held and key != first)
        keys = tuple(islice(chain([first] if first in free else [], mine, others), AHEAD))
        self._lease(connection, reviewer, keys, now + self.settings.lease_seconds)
        return WorkList(
            keys=keys,
            total=len(self.prompts),
            done=len(done & self.prompts.keys()),
            own=len(own & self.prompts.keys()),
            elsewhere=len(wanted) - len(free),
        )

    def _lease(self, connection: Connection, reviewer: str, keys: tuple[str, ...], until: float) -> None:
        """Replace all that the reviewer has in hand."""
        connection.execute(delete(LEASES).where(LEASES.c.reviewer == reviewer))
        if keys:
            rows = [{"key": key, "reviewer": reviewer, "until": until} for key in keys]
            connection.execute(insert(LEASES), rows)
