"""What a worker asks the consumers of its operator for, and which request goes to a free slot. No I/O.

JetStream knows no priorities, so each class has a consumer, and the worker asks them in the order of the rule
(`tridist.icp.priorities`). It asks no more than it must, because each message costs:

- A worker that is idle has open pull requests at all of them, which cost nothing until a request comes.
- One that does not know what waits puts *questions* (`Ask`), the highest class first; the next class is asked when the
  server has said that nothing waits there. A request of a lower class that is here already waits for the answer.
- One that is full for a moment keeps what it has asked for. While more waits than it can take it also asks for one high
  request, which then takes the next free slot without a round trip.
- One that stays full takes back what it has asked for, and gives back what waits here for a slot: another worker may be
  idle.
"""

from __future__ import annotations

from collections import deque
from typing import Generic, NamedTuple, TypeVar

from tridist.icp.nats.credits import NOTHING, Ask, CreditLedger
from tridist.icp.priorities import HIGH, NORMAL, PriorityClass, Turns

FULL_SECONDS = 0.02
"""How long a worker may be full until it takes back what it asked for. Much longer than most requests take, because it
costs several messages; and it is all that a request loses that came to the wrong worker."""

ANSWER_SECONDS = 0.25
"""How long the answer to a question may take. The server sometimes gives none, when others took meanwhile what had
waited. Counted in reviews, so that a worker that stalls itself does not take that for the server's silence."""

_SHARE = 4
"""High and low ones are asked for a fourth of the slots at a time, because they come on top of the normal ones."""

T = TypeVar("T")


class Review(NamedTuple, Generic[T]):
    """What to do about a worker that stays full.

    Attributes:
        withdrawn: whose pull requests have to be taken back; their ledgers are empty already.
        returned: what waits here and goes back; nothing of it is in the schedule any more.
        given_up: whether an answer is not waited for any longer, so that another class may have its turn.
    """

    withdrawn: list[PriorityClass]
    returned: list[T]
    given_up: bool = False


class _Class(Generic[T]):
    """What is known of one class of requests.

    Attributes:
        which: the class.
        ledger: what is asked for.
        most: how many are asked for at a time.
        queue: those that wait here for a slot.
        more: whether more waited at the server when the last one came.
        none: whether nothing waited there when we asked, since we were full last.
    """

    __slots__ = ("ledger", "more", "most", "none", "queue", "which")

    def __init__(self, which: PriorityClass, most: int) -> None:
        self.which = which
        self.ledger = CreditLedger(most)
        self.most = most
        self.queue: deque[T] = deque()
        self.more = False
        self.none = False

    @property
    def unknown(self) -> bool:
        """Whether requests may wait at the server: an open pull request would have brought them."""
        ledger = self.ledger
        return not self.none and (not ledger.outstanding or ledger.question is not None)


class Schedule(Generic[T]):
    """The slots of one worker for one operator, and the requests that wait here for one.

    Args:
        slots: how many requests run at a time.

    Attributes:
        running: requests that have a slot.
        waiting: how many wait here for one.
        blocked: slots that nothing is asked for: requests that are being given up take room as well, for a queue of
            garbage must not all come here at once.
    """

    def __init__(self, slots: int) -> None:
        few = max(1, slots // _SHARE)
        self.running: set[T] = set()
        self.waiting = 0
        self.blocked = 0
        self._slots = slots
        self._classes: list[_Class[T]] = [_Class(which, slots if which is NORMAL else few) for which in PriorityClass]
        self._direct: deque[T] = deque()
        self._movable: set[T] = set()
        self._turns = Turns()
        self._silent: set[PriorityClass] = set()
        self._full_since = 0.0
        self._tight_since: float | None = None
        self._unanswered: tuple[PriorityClass, str | None] | None = None
        self._reviews = 0
        self._slow = False

    def ledger(self, which: PriorityClass) -> CreditLedger:
        """What is asked for of a class; whoever sends the pull requests keeps it."""
        return self._classes[which].ledger

    def heard(self, which: PriorityClass, pending: int) -> None:
        """A message of a class came, with ``pending`` more behind it at the server."""
        known = self._classes[which]
        known.none = False
        known.more = pending > 0
        if self._silent:
            self._silent.discard(which)

    def emptied(self, which: PriorityClass) -> None:
        """The server answered a question: nothing of this class waits any more."""
        known = self._classes[which]
        known.none = True
        known.more = False
        self._silent.discard(which)

    def arrived(self, item: T, which: PriorityClass | None, now: float, *, movable: bool) -> None:
        """A request came.

        Args:
            item: the request.
            which: its class; None for a direct one.
            now: the time in seconds.
            movable: whether it may go back to its queue when there is no slot for it.
        """
        self.waiting += 1
        if which is None:
            self._direct.append(item)
        else:
            self._classes[which].queue.append(item)
            if movable:
                self._movable.add(item)
        self._look(now)

    def next(self, now: float) -> T | None:
        """Give a slot to the request whose turn it is; None when there is no slot, or nothing that may have it now."""
        if not self.waiting or len(self.running) >= self._slots:
            return None
        if self._direct:
            item = self._direct.popleft()
        else:
            wanting = self._wanting()
            which = wanting[0] if len(wanting) == 1 else self._turns.choose(wanting)
            if which is None or not self._classes[which].queue:
                return None  # it is the turn of another, which may be on its way
            item = self._classes[which].queue.popleft()
            self._movable.discard(item)
            wanting = wanting if len(wanting) == 1 else self._wanting()
            # One that waits behind a silence waits still: its turn is not over because we went on without it.
            self._turns.started(which, [*wanting, *self._silent] if self._silent else wanting)
        self.waiting -= 1
        self.running.add(item)
        if len(self.running) >= self._slots:
            self._full_since = now
            self._forget(more=False)
        self._look(now)
        return item

    def freed(self, item: T, now: float) -> None:
        """A request is done with; nothing happens if it has no slot."""
        if item not in self.running:
            return
        if len(self.running) >= self._slots:
            self._slow = now - self._full_since >= FULL_SECONDS
        self.running.discard(item)
        self._tight_since = None
        self._look(now)

    def drain(self) -> list[T]:
        """Take out all that waits here."""
        found = [*self._direct]
        self._direct.clear()
        for known in self._classes:
            found += known.queue
            known.queue.clear()
        self._movable.clear()
        self.waiting = 0
        return found

    def due(self) -> list[PriorityClass]:
        """The classes that there is something to `ask` for."""
        if self._free <= 0:
            high = self._classes[HIGH]
            return [HIGH] if self._saturated and self._ask_ahead(high).credits else []
        wanting = self._wanting()
        turn = self._in_question(wanting)
        return [known.which for known in self._classes if self._ask_now(known, wanting, turn).credits]

    def ask(self, which: PriorityClass) -> Ask:
        """What to ask the consumer of a class for now."""
        known = self._classes[which]
        if self._free <= 0:
            return self._ask_ahead(known) if which is HIGH else NOTHING
        wanting = self._wanting()
        return self._ask_now(known, wanting, self._in_question(wanting))

    @property
    def uneasy(self) -> bool:
        """Whether `review` should be called again in `FULL_SECONDS`."""
        if self._tight_since is not None:
            return True
        high, normal, low = self._classes
        return self._free > 0 and (high.unknown or normal.unknown or low.unknown)

    @property
    def overdue(self) -> bool:
        """Whether `review` should be called at once: who was full for long the last time will be again."""
        return self._slow and self._tight_since is not None and self._free <= 0

    def review(self, now: float) -> Review[T]:
        """Look whether something takes too long: being full, or an answer."""
        given_up = self._look_for_answers()
        since = self._tight_since
        if since is None or not (now - since >= FULL_SECONDS or self.overdue):
            return Review([], [], given_up)
        full = self._free <= 0
        late = [known for known in self._classes if known.ledger.outstanding and (full or known.which is NORMAL)]
        for known in late:
            known.ledger.reset()
        returned = self._take_movable() if full else []
        if full:
            self._slow = True
            self._forget(more=True)
            self._silent.clear()  # they are asked anew
        self._look(now)
        return Review([known.which for known in late], returned, given_up)

    @property
    def _free(self) -> int:
        return self._slots - self.blocked - len(self.running) - len(self._direct)

    @property
    def _saturated(self) -> bool:
        high, normal, low = self._classes
        return high.more or normal.more or low.more

    def _forget(self, *, more: bool) -> None:
        for known in self._classes:
            known.none = False
            known.more = known.more and not more

    def _wanting(self) -> list[PriorityClass]:
        """The classes of which requests wait here, or may wait at the server."""
        return [known.which for known in self._classes if known.queue or known.unknown]

    def _in_question(self, wanting: list[PriorityClass]) -> PriorityClass | None:
        """Whose turn it is, where it matters of which class a request comes first, and is not known what waits."""
        for which in wanting:
            known = self._classes[which]
            if not known.queue and (len(wanting) > 1 or known.more or known.ledger.question is not None):
                return self._turns.choose(wanting)
        return None

    def _ask_now(self, known: _Class[T], wanting: list[PriorityClass], turn: PriorityClass | None) -> Ask:
        """What to ask for while a slot is free; ``turn`` is of `_in_question`."""
        ledger = known.ledger
        if ledger.question is not None:
            return NOTHING
        if turn is not None and not ledger.outstanding:
            if known.none or known.queue or turn is not known.which:
                return NOTHING  # what is here already takes the slot that it would ask for
            return Ask(1 if wanting[0] < turn else max(1, self._room(known)), question=True)
        return ledger.ask(self._room(known))

    def _room(self, known: _Class[T]) -> int:
        left = self._slots - self.blocked - len(self.running) - self.waiting
        return left if known.which is NORMAL else min(left, known.most - len(known.queue))

    def _ask_ahead(self, high: _Class[T]) -> Ask:
        asked = high.ledger.outstanding or high.ledger.question is not None
        if self._slow or high.queue or asked or not self._saturated:
            return NOTHING
        return Ask(1, question=high.more)

    def _look(self, now: float) -> None:
        """Note whether more is asked for, or here, than there are slots."""
        free = self._free
        if free <= 0:
            high, normal, low = self._classes
            asked = high.ledger.outstanding or normal.ledger.outstanding or low.ledger.outstanding
            tight = bool(self._movable or asked)
        else:
            tight = self._classes[NORMAL].ledger.outstanding > free
        if not tight:
            self._tight_since = None
        elif self._tight_since is None:
            self._tight_since = now

    def _look_for_answers(self) -> bool:
        """Go on without the class whose turn it would be when the server does not say whether it has a request."""
        which = self._turns.choose(self._wanting()) if self._free > 0 else None
        if which is None or self._classes[which].queue:
            self._unanswered = None
            return False
        known = self._classes[which]
        unanswered = (which, known.ledger.question)
        if self._unanswered != unanswered:
            self._unanswered = unanswered
            self._reviews = 0
        self._reviews += 1
        if self._reviews * FULL_SECONDS <= ANSWER_SECONDS:
            return False
        self._unanswered = None
        known.ledger.question = None  # now it is a pull request like any other
        known.none = True
        self._silent.add(which)
        return True

    def _take_movable(self) -> list[T]:
        found: list[T] = []
        for known in self._classes:
            found += [item for item in known.queue if item in self._movable]
            known.queue = deque(item for item in known.queue if item not in self._movable)
        self.waiting -= len(found)
        self._movable.clear()
        return found
