"""The function of the connected form: a letter from the queue becomes a return package in Azure, once.

Its memory are notes beside the queue. `<site>/chain` says where the chain of packages stands and what is
being sent under the next number; a letter's receipt stands under its id and under its package's number.

Killed anywhere, or run twice at once, a letter makes one package:

1. What is to be sent is noted first, receipt and all, in a note that only one writer can replace.
2. The package is created under the next number; of several that try, one gets the name.
3. Whoever comes next looks which of the noted ones is there, files its receipt, and only then the chain goes
   on. So a letter that comes again finds its receipt, even if another's try had to find out.

The policy is the one that `packing` applies, through the same `content`. Which letters there are is
`enqueuing`'s work, what the site does with receipts `settling`'s.
"""

from __future__ import annotations

import hashlib
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import msgspec

from edge_ai_assets.returns import clock
from edge_ai_assets.returns.hub.letters import (
    FEEDBACK,
    Left,
    Letter,
    LetterError,
    Receipt,
    decode_receipt,
    numbers,
    overlap,
    ranges_of,
    spans,
)
from edge_ai_assets.returns.hub.notes import Notes
from edge_ai_assets.returns.hub.rulebook import Rulebook
from edge_ai_assets.returns.outbox import columns
from edge_ai_assets.returns.package import packages
from edge_ai_assets.returns.package.content import Content
from edge_ai_assets.returns.package.parts import name_of
from edge_ai_assets.returns.road.roads import Uplink, UplinkError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

RECENT = 1_000
"""Packages whose letters stand in the chain's note, as many as letters may wait on the queue."""
ROUNDS = 100
"""Times that others may be faster in one call; each time one of them got a package through."""


class Target(Uplink, Protocol):
    """A road whose other end says which package has a name."""

    def digest_of(self, name: str) -> str | None:
        """SHA-256 of the package that has this name there, None if none has."""


class Chain(msgspec.Struct, frozen=True):
    """The note `<site>/chain`."""

    number: int = 0
    digest: str = ""
    """Of the last package whose receipt is filed."""
    noted: tuple[Receipt, ...] = ()
    """What was tried under the next number, or may yet be; their digests differ."""
    recent: tuple[tuple[int, str], ...] = ()
    """Numbers of the last packages, rising, with the ids of their letters."""


class ForwardError(RuntimeError):
    """A letter cannot be forwarded, and trying again will not help; the message says why."""


class Forwarder:
    """Forwards the letters of one site.

    Args:
        target: the road to Azure.
        notes: the memory of all forwarders of this site.
        rules: what may leave.
        site_key: what pseudonyms are made with.
        key: the site's private signing key.
        now: the clock.
    """

    def __init__(
        self,
        target: Target,
        notes: Notes,
        rules: Rulebook,
        site_key: bytes,
        key: Ed25519PrivateKey,
        now: clock.Clock = clock.now,
    ) -> None:
        self.site = target.site
        self._target, self._notes, self._rules, self._key, self._now = target, notes, rules, key, now
        self._policy = rules.policy(site_key)

    def forward(self, letter: Letter) -> Receipt:
        """Send what of a letter may leave, unless that was done; its receipt.

        Raises:
            LinkDown: Azure, or the notes, are out of reach.
            UplinkError: Azure refuses.
            ForwardError: the letter is another site's, or the chain is not what it should be.
        """
        if letter.site != self.site:
            raise ForwardError(f"a letter of site {letter.site!r} came to the function of {self.site!r}")
        for _ in range(ROUNDS):
            chain, tag = self._chain(letter)
            # In this order: a receipt that is filed after this look is filed before the chain goes on, and
            # then `_note` below finds that the chain is another.
            if done := self._filed(_by_letter(letter.site, letter.id)):
                return done
            if chain.noted and (there := self._target.digest_of(name_of(self.site, chain.number + 1))):
                self._settle(chain, tag, there)
                continue
            content = self._content(self._new(letter, chain))
            if not content:
                return self._file(_by_letter(letter.site, letter.id), _receipt(letter, content))
            receipt, data = self._build(letter, content, chain)
            if not self._note(chain, tag, receipt):
                continue
            self._send(receipt, data)
        raise ForwardError(f"letter {letter.id}: others were faster {ROUNDS} times, it is tried again later")

    def _chain(self, letter: Letter) -> tuple[Chain, str | None]:
        """Where the chain stands. The site knows better if notes were lost, or packages went another way."""
        note = self._notes.read(_chain_of(self.site))
        chain = msgspec.json.decode(note.data, type=Chain) if note else Chain()
        tag = note.tag if note else None
        if letter.number > chain.number:
            return Chain(letter.number, letter.digest, recent=chain.recent), tag
        if letter.number == chain.number and letter.digest != chain.digest:
            raise ForwardError(
                f"package {letter.number} is {letter.digest} at site {self.site!r} and {chain.digest} here: "
                "two chains have begun; find out which is in Azure, and remove the other's last note"
            )
        return chain, tag

    def _new(self, letter: Letter, chain: Chain) -> Letter:
        """A letter without what is in packages that its site did not know of when it sent it.

        A site that lost its note of what it sent sends it again, in letters that are cut otherwise. Scores
        come once whatever is repeated; what is added up would count them again.
        """
        letters = dict(chain.recent)
        scores, words = set[int](), set[int]()
        for number in range(letter.number + 1, chain.number + 1):
            if number in letters and not overlap(letters[number], letter.id):
                continue
            if receipt := filed(self._notes, self.site, number):
                scores.update(*map(numbers, ranges_of(receipt, "scores")))
                words.update(*map(numbers, ranges_of(receipt, FEEDBACK)))
        return msgspec.structs.replace(
            letter,
            rows=tuple(row for row in letter.rows if row.sequence not in scores),
            feedback=tuple(item for item in letter.feedback if item.id not in words),
        )

    def _content(self, letter: Letter) -> Content:
        content = Content(self._policy, self._rules.contracts)
        for item in letter.feedback:
            content.add_feedback(item.stored(), item.row.stored() if item.row else None)
        scores = columns.of_rows((row.stored() for row in letter.rows), content.broken)
        content.add_scores(scores, self._rules.usecase.returns.window_minutes)
        return content

    def _build(self, letter: Letter, content: Content, chain: Chain) -> tuple[Receipt, bytes]:
        counted = content.sequences
        data = packages.build(
            site=self.site,
            number=chain.number + 1,
            previous=chain.digest,
            policy=self._policy.digest,
            created_at=letter.at,  # not now: tried again, it shall have the same bytes, and resume
            first=min(counted, default=0),
            last=max(counted, default=0),
            insights=content.insights,
            feedback=content.words,
            histograms=content.histograms,
            aggregates=content.aggregates,
            sketches=content.sketches,
            complete=letter.complete,
            key=self._key,
        )
        digest, name = hashlib.sha256(data).hexdigest(), name_of(self.site, chain.number + 1)
        left = Left(self._now(), name, digest, len(data), self._policy.digest, self._target.destination)
        receipt = msgspec.structs.replace(
            _receipt(letter, content),
            number=chain.number + 1,
            name=name,
            digest=digest,
            previous=chain.digest,
            bytes=len(data),
            created_at=letter.at,
            complete=letter.complete,
            left=(left,),
        )
        return receipt, data

    def _note(self, chain: Chain, tag: str | None, receipt: Receipt) -> bool:
        """Note what is about to be sent; False when the chain is another by now."""
        if any(each.digest == receipt.digest for each in chain.noted):
            return True  # by an earlier try of the same letter
        noted = msgspec.structs.replace(chain, noted=(*chain.noted, receipt))
        return self._notes.write(_chain_of(self.site), msgspec.json.encode(noted), tag)

    def _send(self, receipt: Receipt, data: bytes) -> None:
        """Try to get the package's name; whoever has it then is found by the next round."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / receipt.name
            path.write_bytes(data)
            try:
                # What leaves was noted for the ledger, whole.
                self._target.send(path, receipt.name, receipt.digest, lambda first, last: None)
            except UplinkError:
                if self._target.digest_of(receipt.name) in (None, receipt.digest):
                    raise

    def _settle(self, chain: Chain, tag: str | None, there: str) -> None:
        """File the receipt of the package that got the number, and let the chain go on."""
        won = next((each for each in chain.noted if each.digest == there), None)
        if won is None:
            raise ForwardError(
                f"{name_of(self.site, chain.number + 1)} is in Azure with the digest {there}, which was not "
                "made here: another chain of this site has begun there"
            )
        receipt = msgspec.structs.replace(won, left=tuple(left for each in chain.noted for left in each.left))
        self._file(_by_number(self.site, receipt.number), receipt)
        self._file(_by_letter(self.site, receipt.id), receipt)
        recent = (*chain.recent, (receipt.number, receipt.id))[-RECENT:]
        after = Chain(receipt.number, there, recent=recent)
        self._notes.write(_chain_of(self.site), msgspec.json.encode(after), tag)

    def _filed(self, name: str) -> Receipt | None:
        note = self._notes.read(name)
        return decode_receipt(note.data) if note else None

    def _file(self, name: str, receipt: Receipt) -> Receipt:
        """File a receipt, unless one is there; the one that is."""
        if self._notes.write(name, msgspec.json.encode(receipt), None):
            return receipt
        return self._filed(name) or receipt


def filed(notes: Notes, site: str, number: int) -> Receipt | None:
    """The receipt of a package by its number, None if that was not made or is not settled yet."""
    note = notes.read(_by_number(site, number))
    return decode_receipt(note.data) if note else None


def _receipt(letter: Letter, content: Content) -> Receipt:
    held, words = content.withheld, content.withheld_feedback
    return Receipt(
        site=letter.site,
        id=letter.id,
        uploaded=spans(content.packed),
        feedback=spans(item.id for item in content.words),
        withheld={reason: spans(found) for reason, found in held.items()},
        withheld_feedback={reason: spans(found) for reason, found in words.items()},
        broken={reason: spans(found) for reason, found in content.broken.items()},
    )


def _chain_of(site: str) -> str:
    return f"{site}/chain.json"


def _by_letter(site: str, letter: str) -> str:
    if "/" in letter or letter.startswith("."):
        raise LetterError(f"{letter!r} is no name of a letter")
    return f"{site}/letters/{letter}.json"


def _by_number(site: str, number: int) -> str:
    return f"{site}/packages/{number:08}.json"
