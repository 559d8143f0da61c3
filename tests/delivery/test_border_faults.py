"""Borders under faults, from a seed: lost requests and answers, KMEs that die with work in hand, voids.

Whatever happens: both ends get the same bytes, each once; nothing is released that the target never had; what
was said to be void is given to nobody; and when the network heals, all comes to rest and nothing is left.
"""

import random
from collections import defaultdict

import pytest

from openqci.core.errors import KeyUnavailable, RequestRefused
from openqci.core.identifiers import KeyId, KmeId
from openqci.delivery import etsi020_model as model
from openqci.delivery import transfers
from openqci.delivery.etsi020_model import VoidContainer
from openqci.delivery.transfers import PENDING, State
from tests.delivery.borders import ALICE, BOB, Networks, chain, two, url
from tests.delivery.make import key_bytes

ENDS = {"two": (two, "pt", "es"), "chain": (chain, "pt-a", "fr")}
PAIRS = {"two": [("pt", "es")], "chain": [("pt-b", "es-a"), ("es-b", "fr")]}
KEY_BYTES = 1024


class Story:
    """One run: what happens is drawn from a seed; what applications got is written down."""

    def __init__(self, shape: str, seed: int) -> None:
        self.chance = random.Random(f"{shape}/{seed}")
        make, self.origin, self.target = ENDS[shape]
        self.found: Networks = make()
        self.pairs = PAIRS[shape]
        self.found.loses = lambda *_: self.chance.random() < self.loss
        self.loss = self.chance.choice((0.0, 0.1, 0.3))
        self.keys: list[KeyId] = []
        self.values: dict[KeyId, bytes] = {}
        self.master: dict[str, bytes] = {}
        self.slave: dict[str, bytes] = {}
        self.tags = 0

    def run(self) -> None:
        for _ in range(60):
            self.chance.choice(
                (self.begin, self.step, self.step, self.die, self.fetch, self.void, self.wait)
            )()
        self.heal()
        self.check()

    def begin(self) -> None:
        """A new key, or a new batch, begins its way."""
        batch = self.chance.random() < 0.3
        self.tags += batch
        value = key_bytes(KEY_BYTES + 48 if batch else 32)
        key_id, _ = self.found.originate(
            self.origin, ALICE, BOB, value=value, batch_tag=self.tags if batch else None
        )
        self.keys.append(key_id)
        self.values[key_id] = value

    def step(self) -> None:
        """Every KME does what is due, in any order."""
        names = list(self.found.kmes)
        for name in self.chance.sample(names, len(names)):
            self.found.step(name)

    def die(self) -> None:
        """A KME takes up its work, and dies with it: nothing of it is sent."""
        kme = self.found.kmes[self.chance.choice(list(self.found.kmes))]
        for work in self.found.work_of(kme):
            for value in getattr(work, "values", ()):
                value.wipe()

    def wait(self) -> None:
        self.found.now_s += self.chance.choice((0.5, 2.0, 10.0))

    def void(self) -> None:
        if not self.keys or self.chance.random() < 0.5:
            return
        sender, receiver = self.chance.choice(self.pairs)
        if self.chance.random() < 0.5:
            sender, receiver = receiver, sender
        key_id = self.chance.choice(self.keys)
        request = VoidContainer((key_id,), ALICE, (BOB,), url(sender))
        self.found[receiver].border(lambda border: border.void(KmeId(sender), request), self.found.now_s)

    def fetch(self) -> None:
        """The initiator fetches a key, and the target fetches it by its ID, perhaps later."""
        try:
            delivery = self.found[self.origin].enc_keys(ALICE, BOB)
        except KeyUnavailable:
            pass
        else:
            (key,) = delivery.keys
            assert key.key_id not in self.master, "I1: delivered to its master twice"
            self.master[key.key_id] = bytes(key.key.reveal())
        for key_id in [key_id for key_id in self.master if key_id not in self.slave]:
            if self.chance.random() < 0.5:
                self.collect(key_id)

    def collect(self, key_id: str) -> bool:
        try:
            delivery = self.found[self.target].dec_keys(BOB, ALICE, key_id)
        except RequestRefused:
            return False
        assert key_id not in self.slave, "I1: delivered to its slave twice"
        self.slave[key_id] = bytes(delivery.keys[0].key.reveal())
        assert self.slave[key_id] == self.master[key_id], "I2: the ends hold different key"
        return True

    def heal(self) -> None:
        self.loss = 0.0
        self.found.run(1)
        for _ in range(10):
            self.found.now_s += 80.0
            self.found.settle()

    def check(self) -> None:
        for key_id in self.master:
            if key_id not in self.slave and not self.collect(key_id):
                self.explained(key_id)
        self.told()
        for kme in self.found.kmes.values():
            for transfer in kme.view(lambda view: list(transfers.all_transfers(view))):
                assert transfer.state not in PENDING and transfer.state is not State.VOIDING, transfer
        self.found.now_s += 4 * 3_600.0
        self.found.settle()
        self.found.now_s += 60.0
        self.found.settle()
        for kme in self.found.kmes.values():
            assert not kme.view(lambda view: list(transfers.all_transfers(view)))
            for kind in (transfers.ACK_KIND, transfers.VOID_KIND, transfers.DUE_KIND):
                assert not kme.view(lambda view, kind=kind: list(view.records(kind))), (kme.name, kind)
            for stream in (transfers.VALUE_STREAM, transfers.CHECK_STREAM):
                assert not kme.view(lambda view, stream=stream: view.stock_bytes(stream)), (kme.name, stream)

    def explained(self, key_id: str) -> None:
        """A key that the master has and the slave cannot get was voided at the target."""
        at_target = self.found[self.target]
        held = [
            transfer.state
            for transfer in at_target.view(lambda view: list(transfers.all_transfers(view)))
            if transfer.key_id == key_id or transfer.value_bytes > 32
        ]
        assert State.VOIDED in held, f"I3: {key_id} was delivered to its master and is nowhere"

    def told(self) -> None:
        """What was said of a key is one story: relayed and then perhaps void, or failed, or void."""
        said: dict[tuple[KmeId, KmeId, str], list[str]] = defaultdict(list)
        for kind, sender, receiver, body in self.found.bodies:
            if kind == "acks":
                for each in model.acks_from_body(body):
                    for key in each.keys:
                        said[sender, receiver, key.key_id].append(each.status.value)
        for who, statuses in said.items():
            finals = {each for each in statuses if each in ("relayed", "failed")}
            assert len(finals) <= 1, (who, statuses)


@pytest.mark.parametrize("shape", ["two", "chain"])
def test_borders_under_faults(shape: str) -> None:
    delivered = 0
    for seed in range(30):
        story = Story(shape, seed)
        try:
            story.run()
        except AssertionError as error:
            raise AssertionError(f"{shape}, seed {seed}: {error}") from error
        delivered += len(story.slave)
    assert delivered > 30, "the stories are no test if hardly a key arrives"
