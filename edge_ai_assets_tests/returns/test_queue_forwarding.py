"""The connected form, embedded: everything once, killed at each step, whatever comes twice."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_ai_assets.returns.egress import ledger
from edge_ai_assets.returns.hub import enqueuing, forwarding, handling, letters, rulebook, settling
from edge_ai_assets.returns.hub.forwarding import Forwarder, ForwardError, filed
from edge_ai_assets.returns.hub.letters import Letter, LetterError
from edge_ai_assets.returns.hub.notes import FolderNotes
from edge_ai_assets.returns.hub.queue import MAX_BODY, EmbeddedQueue, QueueError
from edge_ai_assets.returns.hub.rulebook import Rulebook, RulebookError
from edge_ai_assets.returns.inbox import inbox, tables
from edge_ai_assets.returns.outbox import insights
from edge_ai_assets.returns.outbox.outbox import Feedback, Outbox
from edge_ai_assets.returns.road.link import Link, LinkDown
from edge_ai_assets.returns.road.roads import UplinkError
from edge_ai_assets.stack_hub.forwarding import FolderTarget

SITE_KEY = b"site key of the tests, 32 bytes."


class Killed(BaseException):
    """As by kill -9: nothing of ours catches it."""


class Fuse:
    """Kills at the given operation, before or after it is done."""

    def __init__(self, at: int | None = None) -> None:
        self.at, self.count = at, 0

    def around(self, thing: Any, *names: str) -> Any:
        for name in names:
            setattr(thing, name, self._fused(getattr(thing, name)))
        return thing

    def _fused(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def fused(*arguments: Any, **options: Any) -> Any:
            self._spend()
            done = call(*arguments, **options)
            self._spend()
            return done

        return fused

    def _spend(self) -> None:
        self.count += 1
        if self.count == self.at:
            raise Killed


class Home:
    """A site, its hub and Azure in a folder."""

    def __init__(self, folder: Path, rules: Rulebook, key: Any) -> None:
        self.folder, self.rules, self.key = folder, rules, key
        folder.mkdir(parents=True, exist_ok=True)
        self.at = 1_760_000_000_000_000
        self.outbox = Outbox(folder / "outbox.db")
        rulebook.publish(FolderNotes(folder / "notes"), "bergen", rules, key)

    def now(self) -> int:
        self.at += 1_000
        return self.at

    def queue(self, name: str) -> EmbeddedQueue:
        return EmbeddedQueue(self.folder / "queues.db", name, self.now)

    def forwarder(self, fuse: Fuse) -> Forwarder:
        notes = fuse.around(FolderNotes(self.folder / "notes"), "write")
        target = fuse.around(
            FolderTarget(self.folder / "uplink", "bergen", Link(self.folder)), "send", "digest_of"
        )
        return Forwarder(target, notes, self.rules, SITE_KEY, self.key, self.now)

    def enqueue(self, fuse: Fuse, most: int = 64) -> enqueuing.Sent:
        queue = fuse.around(self.queue("letters"), "send")
        return enqueuing.enqueue(self.outbox, "bergen", queue, self.folder, now=self.now, most=most)

    def work(self, fuse: Fuse, most: int = 100) -> handling.Worked:
        queue = fuse.around(self.queue("letters"), "delete")
        receipts = fuse.around(self.queue("receipts"), "send")
        forward = self.forwarder(fuse).forward
        return handling.work(queue, receipts, self.queue("dead"), forward, most=most, now=self.now)

    def settle(self, fuse: Fuse) -> settling.Settled:
        return settling.settle(
            fuse.around(self.outbox_again(), "seal", "uploaded", "dispose"),
            fuse.around(self.queue("receipts"), "delete"),
            FolderNotes(self.folder / "notes"),
            fuse.around(ledger.Ledger(self.folder / "ledger.jsonl"), "append"),
            self.folder / "spool",
            site="bergen",
            now=self.now,
            dead=self.queue("dead"),
        )

    def outbox_again(self) -> Outbox:
        return Outbox(self.folder / "outbox.db")

    def later(self, seconds: int = 1_000) -> None:
        self.at += seconds * 1_000_000

    def everything(self, fuse: Fuse) -> None:
        self.enqueue(fuse)
        self.work(fuse)
        self.settle(fuse)

    def finish(self) -> None:
        """Run until nothing is left, as the sensor does."""
        for _ in range(12):
            self.later()
            self.everything(Fuse())
            if not self.queue("letters").count() and not self.queue("receipts").count():
                return
        raise AssertionError("it does not come to an end")

    def received(self) -> inbox.Received:
        return inbox.receive(
            self.folder / "uplink",
            self.folder / "tables",
            {"bergen": [self.key.public_key()]},
            self.folder / "refused",
        )


@pytest.fixture
def homes(tmp_path: Path, small: Any, contract: Any, key: Any) -> Callable[[], Home]:
    numbers = itertools.count()
    return lambda: Home(tmp_path / str(next(numbers)), Rulebook(small, {"r1": contract}), key)


@pytest.fixture
def home(homes: Callable[[], Home]) -> Iterator[Home]:
    yield homes()


def fill(home: Home, batch: Callable[..., Any], rows: int = 6, words: int = 2) -> None:
    home.outbox.append([batch(rows)])
    scored = home.outbox.counts().scored
    home.outbox.add_feedback([Feedback(scored - i, True, "confirmed", "operator", 7) for i in range(words)])
    insights.derive(home.outbox)


def check(home: Home, anomalies: int, words: int, withheld: int) -> None:
    """Everything once, and every party says the same."""
    received = home.received()
    assert received.refused == [] and received.waiting == []
    assert tables.count(home.folder / "tables", "insights") == anomalies
    assert tables.count(home.folder / "tables", "feedback") == words
    assert received.repeated == 0
    counts = home.outbox.counts()
    assert counts.conserved and counts == home.outbox.recount()
    assert (counts.uploaded, counts.withheld, counts.pending) == (anomalies, withheld, 0)
    assert not home.outbox.waiting_feedback(10) and not home.outbox.unsent()
    sent = {path.name: path for path in (home.folder / "uplink" / "bergen").glob("*.zip")}
    known = home.outbox.packages()
    assert sorted(sent) == [package.name for package in known]
    for package in known:
        receipt = filed(FolderNotes(home.folder / "notes"), "bergen", package.number)
        assert receipt is not None and receipt.digest == package.digest
        entries = ledger.of_package(home.folder / "ledger.jsonl", package.name)
        assert package.digest in [entry.digest for entry in entries]
    ledger.verify(home.folder / "ledger.jsonl")


def test_everything_comes_home_once(home, batch):
    fill(home, batch, 400)
    sent = home.enqueue(Fuse())
    assert (sent.rows, sent.feedback) == (400, 2) and not sent.full
    bodies = [message.body for message in home.queue("letters").peek(32)]
    assert all(len(body) <= MAX_BODY for body in bodies) and len(bodies) == sent.letters > 3
    kinds = [letters.decode_letter(body).id.split("-")[0] for body in bodies]
    assert kinds == sorted(kinds, key=["feedback", "anomaly", "normal"].index)
    assert home.enqueue(Fuse()).letters == 0, "what is on the queue is not sent again"
    assert home.outbox.counts().pending == 400
    worked = home.work(Fuse())
    assert worked.receipts == sent.letters and not worked.dead and not worked.failed
    settled = home.settle(Fuse())
    assert settled.receipts == sent.letters and settled.waiting == 0
    check(home, 200, 2, 200)
    home.finish()
    check(home, 200, 2, 200)


@pytest.mark.slow
def test_a_kill_at_every_step(homes, batch):
    """Before and after each operation that others can see; then whatever is left is taken up again."""
    for at in itertools.count(1):
        home, fuse = homes(), Fuse(at)
        fill(home, batch)
        try:
            home.everything(fuse)
        except Killed:
            pass
        else:
            assert at > 60, f"only {at} operations"
            break
        home.finish()
        check(home, 3, 2, 3)
        assert len(home.outbox.packages()) <= 3, "a letter made two packages"
        home.outbox.close()


@pytest.mark.slow
def test_two_kills_and_others_in_between(homes, batch):
    for first, second in itertools.product(range(1, 60, 13), range(1, 40, 9)):
        home = homes()
        fill(home, batch)
        for at in (first, second):
            try:
                home.everything(Fuse(at))
            except Killed:
                home.later(at * 60)
            fill(home, batch, 2, 0)
        home.finish()
        check(home, 5, 2, 5)
        home.outbox.close()


def test_a_letter_that_comes_again_makes_no_other_package(home, batch):
    fill(home, batch, 4, 0)
    home.enqueue(Fuse())
    (body, _) = (message.body for message in home.queue("letters").peek(2))
    letter = letters.decode_letter(body)
    forward = home.forwarder(Fuse()).forward
    once = forward(letter)
    assert once.number == 1 and forward(letter) == once
    later = msgspec.structs.replace(letter, number=1, digest=once.digest, complete=99)
    assert forward(later) == once
    other = msgspec.structs.replace(letter, id="anomaly-9-9")
    assert forward(other).number == 2 and forward(letter) == once


def test_another_takes_up_what_a_killed_one_sent(home, batch):
    fill(home, batch, 4, 2)
    home.enqueue(Fuse())
    words, anomalies = (letters.decode_letter(m.body) for m in home.queue("letters").peek(2))
    sent = next(
        at
        for at in itertools.count(1)
        if _dies(home, Fuse(at), words) and (home.folder / "uplink/bergen").exists()
    )
    assert sent and filed(FolderNotes(home.folder / "notes"), "bergen", 1) is None
    assert home.forwarder(Fuse()).forward(anomalies).number == 2
    adopted = filed(FolderNotes(home.folder / "notes"), "bergen", 1)
    assert adopted is not None and adopted.id == words.id
    assert home.forwarder(Fuse()).forward(words) == adopted


def _dies(home: Home, fuse: Fuse, letter: Letter) -> bool:
    try:
        home.forwarder(fuse).forward(letter)
    except Killed:
        return True
    raise AssertionError("it did not die")


def test_the_policy_may_change_between_tries(home, batch, small, contract):
    """What left under the old policy is what the receipt says, not what the new one would have let out."""
    fill(home, batch, 4, 0)
    home.enqueue(Fuse())
    letter = letters.decode_letter(home.queue("letters").peek(1)[0].body)
    at = next(
        at
        for at in itertools.count(1)
        if _dies(home, Fuse(at), letter) and (home.folder / "uplink/bergen").exists()
    )
    assert at
    egress = small.egress.model_copy(update={"kinds": ()})
    home.rules = Rulebook(small.model_copy(update={"egress": egress}), {"r1": contract})
    receipt = home.forwarder(Fuse()).forward(letter)
    assert receipt.number == 1 and letters.total(receipt.uploaded) == 2
    assert receipt.left[0].policy != home.rules.policy(SITE_KEY).digest
    home.finish()
    check(home, 2, 0, 2)


def test_one_who_slept_gets_the_next_number(home, batch):
    """A forwarder that stopped right before it sends, while others went on."""
    fill(home, batch, 4, 2)
    home.enqueue(Fuse())
    words, anomalies, _ = (letters.decode_letter(m.body) for m in home.queue("letters").peek(3))
    slow = home.forwarder(Fuse())
    send, slept = slow._target.send, []

    def late(*arguments: Any) -> int:
        if not slept:
            slept.append(home.forwarder(Fuse()).forward(anomalies))
        return send(*arguments)

    slow._target.send = late
    assert slow.forward(words).number == 2 and slept[0].number == 1
    first = filed(FolderNotes(home.folder / "notes"), "bergen", 1)
    assert first is not None and len(first.left) == 2, "the loser may have sent bytes under that name"
    home.finish()
    check(home, 2, 2, 2)


@pytest.mark.parametrize("name", ["read", "write"])
def test_two_that_forward_the_same_letter_at_once_make_one_package(home, batch, name):
    fill(home, batch, 4, 0)
    home.enqueue(Fuse())
    letter = letters.decode_letter(home.queue("letters").peek(1)[0].body)
    slow, done = home.forwarder(Fuse()), []
    call = getattr(slow._notes, name)

    def meanwhile(*arguments: Any) -> Any:
        if not done:
            done.append(home.forwarder(Fuse()).forward(letter))
        return call(*arguments)

    setattr(slow._notes, name, meanwhile)
    assert slow.forward(letter).number == 1 == done[0].number
    assert len(list((home.folder / "uplink/bergen").glob("*.zip"))) == 1


@settings(max_examples=15)
@given(st.data())
def test_any_order_and_repetition_of_letters_and_receipts(
    tmp_path_factory, small, contract, key, batch, data
):
    home = Home(tmp_path_factory.mktemp("home"), Rulebook(small, {"r1": contract}), key)
    for _ in range(data.draw(st.integers(1, 3))):
        fill(home, batch, data.draw(st.integers(1, 9)), 1)
        home.enqueue(Fuse(), most=data.draw(st.integers(1, 3)))
    home.enqueue(Fuse())
    bodies = [message.body for message in home.queue("letters").receive(32, 10_000)]
    forward = home.forwarder(Fuse()).forward
    order = data.draw(st.permutations(bodies)) + data.draw(st.lists(st.sampled_from(bodies), max_size=4))
    receipts = [msgspec.json.encode(forward(letters.decode_letter(body))) for body in order]
    queue = home.queue("receipts")
    for receipt in data.draw(st.permutations(receipts)):
        queue.send(receipt)
        if data.draw(st.booleans()):
            home.settle(Fuse())
            home.later()
    for _ in range(3):
        home.later()
        home.settle(Fuse())
    scored = home.outbox.counts().scored
    assert queue.count() == 0
    anomalies = len(home.outbox.rows(1, scored)) - sum(
        r.kind == "normal" for r in home.outbox.rows(1, scored)
    )
    words = sum(package.feedback for package in home.outbox.packages())
    check(home, anomalies, words, scored - anomalies)


def test_a_lost_receipt_is_looked_up(home, batch):
    fill(home, batch, 4, 2)
    home.enqueue(Fuse())
    home.work(Fuse())
    queue = home.queue("receipts")
    first, *_ = queue.receive(1, 60)
    assert letters.decode_receipt(first.body).number == 1
    queue.delete(first)
    assert home.settle(Fuse()).packages == ["bergen-00000001.zip", "bergen-00000002.zip"]
    check(home, 2, 2, 2)


def test_a_receipt_of_another_chain_changes_nothing(home, batch):
    fill(home, batch, 4, 0)
    home.enqueue(Fuse())
    letter = letters.decode_letter(home.queue("letters").peek(1)[0].body)
    receipt = home.forwarder(Fuse()).forward(letter)
    wrong = msgspec.structs.replace(receipt, previous="0" * 64)
    home.queue("receipts").send(msgspec.json.encode(wrong))
    dead = home.queue("dead")
    for tries in range(1, 6):
        done = home.settle(Fuse())
        assert (len(done.failed), len(done.dead), dead.count()) == ((1, 0, 0) if tries < 5 else (0, 1, 1))
        home.later()
    assert "two chains" in done.dead[0] and home.queue("receipts").count() == 0
    assert letters.exhume(dead.peek(1)[0].body, 1, 1).reason == done.dead[0]
    assert home.outbox.counts().pending == 4 and not home.outbox.packages()


def test_a_receipt_that_contradicts_holds_up_no_other(home, batch):
    fill(home, batch, 4, 0)
    home.enqueue(Fuse())
    home.work(Fuse())
    home.queue("receipts").send(msgspec.json.encode(letters.Receipt("bergen", "x", 1, previous="0" * 64)))
    done = home.settle(Fuse())
    assert done.receipts == 2 and home.outbox.counts().pending == 0
    assert "the receipt says" in done.failed[0]


def receipt(**changed: Any) -> bytes:
    return msgspec.json.encode(letters.Receipt(**{"site": "bergen", "id": "anomaly-1-2", **changed}))


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (receipt(site="oslo", withheld={"nothing": [(1, 2)]}), "a receipt of site 'oslo' came to 'bergen'"),
        (receipt(withheld={"n": [(1, 10**9)]}), "a letter holds fewer"),
        (receipt(withheld={"n": [(1, 4)] * 20_000})[:MAX_BODY], "no receipt"),
        (receipt(broken={"n": [(4, 5)]}), "about score 5, this site's go to 4"),
        (receipt(complete=5), "about score 5, this site's go to 4"),
        (receipt(feedback=[(0, 1)]), "not one that can be"),
        (receipt(feedback=[(3, 2)]), "not one that can be"),
        (receipt(withheld_feedback={"n": [(2**70, 2**70)]}), "no receipt"),
        (receipt(number=2**63), "no"),
        (b"[" * 40_000, "no receipt"),
        (b'{"v":1,"x":' + b"[" * 40_000, "no receipt"),
    ],
)
def test_what_is_no_receipt_of_this_site_changes_nothing(home, batch, body, reason):
    fill(home, batch, 4, 2)
    home.queue("receipts").send(body)
    done = home.settle(Fuse())
    assert len(done.dead) == 1 and reason in done.dead[0] and home.queue("receipts").count() == 0
    assert home.outbox.counts().pending == 4 and len(home.outbox.waiting_feedback(9)) == 2


@pytest.mark.parametrize("body", [b"[" * 40_000, b'{"v":1,"x":' + b"[" * 40_000])
def test_what_is_nested_too_deep_is_no_letter(body):
    with pytest.raises(LetterError, match="no letter"):
        letters.decode_letter(body)
    assert letters.exhume(body, 1, 1).body == body


def test_lost_notes_and_a_lost_cursor_count_nothing_twice(home, batch):
    fill(home, batch, 6, 1)
    home.everything(Fuse())
    (home.folder / "queued.json").unlink()
    (home.folder / "notes" / "bergen" / "chain.json").unlink()
    fill(home, batch, 2, 0)
    home.finish()
    check(home, 4, 1, 4)


@pytest.mark.parametrize("first", [True, False], ids=["letter first", "letter last"])
def test_what_is_sent_again_in_other_letters_is_not_added_up_again(home, batch, small, contract, first):
    """The note of what was sent is lost while letters or their receipts are on their way."""
    kinds = {"kinds": ("anomaly", "feedback", "aggregate"), "minimum_group_size": 2}
    egress = small.egress.model_copy(update=kinds)
    home.rules = Rulebook(small.model_copy(update={"egress": egress}), {"r1": contract})
    fill(home, batch, 6, 1)
    home.enqueue(Fuse())
    if first:
        home.work(Fuse())
    early = [] if first else home.queue("letters").receive(32, 500)
    (home.folder / "queued.json").unlink()
    fill(home, batch, 4, 1)
    home.enqueue(Fuse())
    home.work(Fuse())
    for message in early:
        home.queue("letters").send(message.body)
    home.finish()
    check(home, 5, 2, 5)
    assert sum(row["rows"] for row in tables.rows(home.folder / "tables", "aggregates")) == 10


def test_a_letter_is_compared_with_few_receipts(home, batch, monkeypatch):
    """Those of letters of the same kind and stretch; if the chain's note is of an earlier version, with all
    since."""
    looked: list[int] = []
    monkeypatch.setattr(forwarding, "filed", lambda *of: (looked.append(of[2]), filed(*of))[1])
    fill(home, batch, 900, 2)
    home.enqueue(Fuse())
    *others, last = [letters.decode_letter(message.body) for message in home.queue("letters").receive(32, 60)]
    for letter in others:
        home.forwarder(Fuse()).forward(letter)
    assert looked == []
    anomalies = next(letter for letter in others if letter.id.startswith("anomaly"))
    again = msgspec.structs.replace(anomalies, id=f"anomaly-1-{anomalies.rows[0].sequence}")
    assert home.forwarder(Fuse()).forward(again).number == 0 and looked == [2]
    path = home.folder / "notes/bergen/chain.json"
    chain = msgspec.json.decode(path.read_bytes(), type=forwarding.Chain)
    path.write_bytes(msgspec.json.encode(msgspec.structs.replace(chain, recent=())))
    home.forwarder(Fuse()).forward(last)
    assert looked == [2, *range(1, chain.number + 1)]


def test_a_dead_letter_has_its_reason_and_comes_back(home, batch):
    fill(home, batch, 4, 0)
    home.enqueue(Fuse())

    def refuses(letter: Letter) -> Any:
        raise UplinkError("the container is gone: create it")

    queue, dead = home.queue("letters"), home.queue("dead")
    for tries in range(1, 6):
        worked = handling.work(queue, home.queue("receipts"), dead, refuses, now=home.now)
        assert len(worked.failed) == (2 if tries < 5 else 0)
        home.later()
    assert worked.dead == ["UplinkError: the container is gone: create it"] * 2
    assert queue.count() == 0 and dead.count() == 2
    found = [letters.exhume(m.body, m.tries, m.sent_at) for m in dead.peek(32)]
    assert [(each.tries, each.reason) for each in found] == [(5, worked.dead[0])] * 2
    assert home.outbox.counts().pending == 4
    assert settling.retry(dead, queue, home.queue("receipts")) == 2 and dead.count() == 0
    home.finish()
    check(home, 2, 0, 2)


def test_a_dead_receipt_comes_back_as_a_receipt(home, batch):
    fill(home, batch, 4, 0)
    home.enqueue(Fuse())
    home.work(Fuse())
    receipts, dead, queue = home.queue("receipts"), home.queue("dead"), home.queue("letters")
    given = receipts.receive(32, 60)
    assert given
    for message in given:
        dead.send(letters.bury(message.body, "two chains have begun", message.tries, home.now()))
        receipts.delete(message)
    assert settling.retry(dead, queue, receipts) == len(given)
    assert (queue.count(), receipts.count(), dead.count()) == (0, len(given), 0)
    home.finish()
    check(home, 2, 0, 2)


def test_a_link_that_is_down_kills_no_letter(home, batch):
    fill(home, batch, 4, 0)
    home.enqueue(Fuse())
    Link(home.folder).cut()
    for _ in range(23):
        worked = home.work(Fuse())
        assert not worked.dead and worked.receipts == 0
        home.later()
    assert home.queue("letters").count() == 2 and home.queue("dead").count() == 0
    Link(home.folder).restore()
    home.finish()
    check(home, 2, 0, 2)


@pytest.mark.parametrize("body", [b"", b"\xff\x00", b"{}", b'{"v": 2}', b"[]", b"x" * MAX_BODY, b'{"v": 1}'])
def test_what_is_no_letter_ends_as_it_was(home, body):
    queue, dead = home.queue("letters"), home.queue("dead")
    queue.send(body)
    for _ in range(6):
        home.work(Fuse())
        home.later()
    (message,) = dead.peek(32)
    found = letters.exhume(message.body, 1, 1)
    assert found.body == body
    assert "LetterError" in found.reason if len(body) < MAX_BODY else "too large" in found.reason
    home.queue("receipts").send(body)
    home.settle(Fuse())
    assert home.queue("receipts").count() == 0 and dead.count() == 2


def test_a_try_that_ends_the_process_is_counted(home, batch):
    fill(home, batch, 1, 0)
    home.enqueue(Fuse())

    def dies(letter: Letter) -> Any:
        raise Killed

    queue, dead = home.queue("letters"), home.queue("dead")
    for _ in range(5):
        with pytest.raises(Killed):
            handling.work(queue, home.queue("receipts"), dead, dies, now=home.now)
        home.later()
    assert handling.work(queue, home.queue("receipts"), dead, dies, now=home.now).dead
    assert "no reason was noted" in letters.exhume(dead.peek(1)[0].body, 5, 1).reason


def test_what_cannot_fit_into_a_message_is_quarantined(home, batch, record):
    from edge_ai_assets_tests import blocks

    home.outbox.append([blocks.batch([record(0, Type="x" * MAX_BODY), record(1)], [0.9, 0.9], [True, True])])
    insights.derive(home.outbox)
    home.finish()
    counts = home.outbox.counts()
    assert (counts.quarantined, counts.uploaded, counts.pending) == (1, 1, 0)
    assert home.outbox.dead_letters(5)[0].reason == enqueuing.TOO_LARGE


def test_no_forbidden_value_leaves(home, batch, record):
    from edge_ai_assets_tests import blocks

    canary = "canary-4711-canary"
    rows = [record(row, Secret=canary, Type=canary, Unknown=canary) for row in range(50)]
    home.outbox.append([blocks.batch(rows, [0.9] * 50, [row % 2 == 0 for row in range(50)])])
    home.outbox.add_feedback([Feedback(1, True, canary, canary, 5)])
    insights.derive(home.outbox)
    home.finish()
    sent = b"".join(path.read_bytes() for path in (home.folder / "uplink").rglob("*") if path.is_file())
    assert sent and canary.encode() not in sent
    from edge_ai_assets.returns.package import packages

    for path in (home.folder / "uplink/bergen").glob("*.zip"):
        package = packages.read(path, [home.key.public_key()])
        for part in (package.insights, package.feedback, package.histograms):
            assert canary not in str(part.to_pylist())


def test_the_queue_does_not_grow_while_nobody_takes_from_it(home, batch, monkeypatch):
    monkeypatch.setattr(enqueuing, "MOST_QUEUED", 3)
    fill(home, batch, 900, 1)
    for _ in range(4):
        home.enqueue(Fuse())
    assert home.queue("letters").count() == 3 and home.enqueue(Fuse()).full
    for _ in range(40):
        home.later()
        home.everything(Fuse())
    check(home, 450, 1, 450)


def test_letters_of_other_sites_and_unsigned_rules_are_refused(home, batch, key):
    fill(home, batch, 1, 0)
    home.enqueue(Fuse())
    letter = letters.decode_letter(home.queue("letters").peek(1)[0].body)
    with pytest.raises(ForwardError, match="a letter of site 'oslo'"):
        home.forwarder(Fuse()).forward(msgspec.structs.replace(letter, site="oslo"))
    with pytest.raises(LetterError, match="no name of a letter"):
        home.forwarder(Fuse()).forward(msgspec.structs.replace(letter, id="../../chain"))
    notes = FolderNotes(home.folder / "notes")
    assert rulebook.read(notes, "bergen", key).usecase == home.rules.usecase
    note = notes.read("bergen/rules.dsse")
    assert note is not None
    assert notes.write("bergen/rules.dsse", note.data.replace(b"a", b"b", 1), note.tag)
    with pytest.raises(RulebookError):
        rulebook.read(notes, "bergen", key)
    with pytest.raises(RulebookError, match="has not said"):
        rulebook.read(notes, "oslo", key)


def test_a_stranger_under_the_next_name_stops_the_chain(home, batch):
    fill(home, batch, 4, 0)
    home.enqueue(Fuse())
    (home.folder / "uplink/bergen").mkdir(parents=True)
    (home.folder / "uplink/bergen/bergen-00000001.zip").write_bytes(b"strange")
    worked = home.work(Fuse())
    assert len(worked.failed) == 2 and all("not made here" in reason for reason in worked.failed)
    assert (home.folder / "uplink/bergen/bergen-00000001.zip").read_bytes() == b"strange"


def test_packages_made_before_go_on_in_the_same_chain(home, batch, policy, contract, key):
    from edge_ai_assets.returns.package import packing
    from edge_ai_assets.returns.road import uplink

    fill(home, batch, 4, 1)
    spool = home.folder / "spool"
    spool.mkdir()
    assert packing.pack(home.outbox, "bergen", policy, {"r1": contract}, key, spool, at=5)
    road = FolderTarget(home.folder / "uplink", "bergen", Link(home.folder))
    uplink.upload(home.outbox, spool, road, ledger.Ledger(home.folder / "ledger.jsonl"))
    fill(home, batch, 4, 1)
    home.finish()
    assert [package.number for package in home.outbox.packages()] == [1, 2, 3]
    assert home.received().refused == []


@given(st.lists(st.integers(0, 60)))
def test_spans_name_the_same_numbers(found):
    ranges = letters.spans(found)
    assert letters.numbers(ranges) == sorted(set(found)) and letters.total(ranges) == len(set(found))
    assert all(later[0] > before[1] + 1 for before, later in itertools.pairwise(ranges))


def test_notes_are_replaced_only_by_who_knows_them(tmp_path):
    notes = FolderNotes(tmp_path)
    assert notes.read("a/b") is None and not notes.write("a/b", b"1", "x")
    assert notes.write("a/b", b"1", None) and not notes.write("a/b", b"2", None)
    first = notes.read("a/b")
    assert first and notes.write("a/b", b"2", first.tag) and not notes.write("a/b", b"3", first.tag)
    assert notes.read("a/b").data == b"2"


def test_an_empty_or_absent_link_and_queue_do_nothing(home):
    assert home.enqueue(Fuse()).letters == 0
    assert home.work(Fuse()) == handling.Worked(0, [], [])
    assert home.settle(Fuse()).receipts == 0
    assert not (home.folder / "queued.json").exists()
    assert isinstance(LinkDown(), ConnectionError) and issubclass(QueueError, RuntimeError)


def test_what_is_on_the_queue_does_not_expire_and_what_waits_for_it_does(home, batch):
    """It would arrive, and be counted as expired at the site."""
    with enqueuing.sent_through(home.folder) as sent:
        assert sent == {}
    fill(home, batch, 6, words=0)
    home.enqueue(Fuse())
    fill(home, batch, 4, words=0)
    with enqueuing.sent_through(home.folder) as sent:
        assert home.outbox.expire(10**9, 5, "quota", sent).rows == 4
    home.finish()
    check(home, anomalies=3, words=0, withheld=3)
