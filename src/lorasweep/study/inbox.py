"""What workers have said and has not been acted on, in order, whenever it was taken in."""

from __future__ import annotations

import selectors
import time
from collections import deque
from collections.abc import Iterator, Sequence

from lorasweep.study.channel import Channel, Message
from lorasweep.study.slots import Slot


class Inbox:
    """Hears all workers of a controller, also while it cannot act on what they say."""

    def __init__(self, slots: Sequence[Slot]) -> None:
        self.slots = slots
        self._waiting: deque[tuple[Slot, Channel | None, Message | None]] = deque()

    def take_in(self, seconds: float) -> None:
        """Keep what workers say; wait so long for the first to say something."""
        gone = {channel for _, channel, message in self._waiting if message is None}
        with selectors.DefaultSelector() as selector:
            for slot in self.slots:
                if slot.channel and slot.channel not in gone:
                    selector.register(slot.channel, selectors.EVENT_READ, slot)
            for key, _ in selector.select(seconds):
                slot, messages = key.data, key.data.channel.receive()
                if messages is not None:
                    slot.heard = time.monotonic()
                self._waiting += [
                    (slot, slot.channel, message) for message in messages or ([None] * (messages is None))
                ]

    def messages(self) -> Iterator[tuple[Slot, Message | None]]:
        """Yield what was said, once, and None of a worker that is gone; not what one said that has been ended since."""
        while self._waiting:
            slot, channel, message = self._waiting.popleft()
            if slot.channel is channel:
                yield slot, message

    def let_go_on(self) -> None:
        """Answer those who have reported and wait for a word; what they reported is still to be acted on."""
        for slot, channel, message in self._waiting:
            if message and message["event"] == "report" and not message.get("answered") and slot.channel is channel:
                message["answered"] = True
                slot.send({"do": "answer", "go_on": True})
