"""A person with a matrix-nio client, and what such a person does and expects to see."""

import argparse
import asyncio
import sys
import tempfile

from nio import (
    AsyncClient,
    AsyncClientConfig,
    EphemeralEvent,
    ErrorResponse,
    Event,
    MegolmEvent,
    RoomMessageText,
)

# A small timeline, so that a client that was away gets a limited one and has to page.
SYNC_FILTER = {"room": {"timeline": {"limit": 10}}}
LONG_POLL_MS = 10_000

ENCRYPTION = {
    "type": "m.room.encryption",
    "state_key": "",
    "content": {"algorithm": "m.megolm.v1.aes-sha2"},
}


class Failure(Exception):
    """What was expected did not happen."""


def expect(condition, what):
    """Fails the script unless `condition` holds."""
    if not condition:
        raise Failure(f"expected that {what}")


def ok(response, what):
    """The response, unless it is an error."""
    if isinstance(response, ErrorResponse):
        raise Failure(f"{what} failed: {response}")
    return response


class Person:
    """One device of one user. Nothing runs in the background: it syncs while it waits for something."""

    #: What is being done or waited for, for the message of a timeout.
    now = "nobody has done anything"

    def __init__(self, homeserver, name, password):
        self.name, self.password = name, password
        self.store = tempfile.TemporaryDirectory(prefix="everfold-nio-")
        config = AsyncClientConfig(encryption_enabled=True, store_sync_tokens=False)
        self.client = AsyncClient(homeserver, name, store_path=self.store.name, config=config)
        self.client.add_event_callback(self._on_event, Event)
        self.client.add_ephemeral_callback(self._on_ephemeral, EphemeralEvent)
        self.events = {}
        self.ephemeral = []
        self.last_sync = None

    @property
    def id(self):
        return self.client.user_id

    def step(self, what):
        """Tells of what the person does next."""
        Person.now = f"{self.name} {what}"
        print(f"[{self.name}] {what}", file=sys.stderr, flush=True)

    async def _on_event(self, room, event):
        expect(event.event_id not in self.events, f"{event.event_id} is synced to {self.name} once only")
        self.events[event.event_id] = (room.room_id, event)

    async def _on_ephemeral(self, room, event):
        self.ephemeral.append((room.room_id, event))

    async def register(self):
        """Registers through m.login.dummy, and logs out the device that comes with it."""
        self.step("registers")
        ok(await self.client.register(self.name, self.password), f"registering {self.name}")
        ok(await self.client.logout(), "logging out the registering device")

    async def login(self):
        """Logs in a new device; the first sync, and the upload of its keys."""
        self.step("logs in")
        ok(await self.client.login(self.password, device_name="nio"), f"logging {self.name} in")
        await self.turn(timeout_ms=0)
        expect(not self.client.should_upload_keys, "the device keys are uploaded")

    async def close(self):
        await self.client.close()
        self.store.cleanup()

    async def turn(self, timeout_ms=LONG_POLL_MS):
        """One sync, and the requests about keys that follow from it."""
        client = self.client
        self.last_sync = ok(await client.sync(timeout=timeout_ms, sync_filter=SYNC_FILTER), "the sync")
        if client.should_upload_keys:
            ok(await client.keys_upload(), "the upload of keys")
        if client.should_query_keys:
            ok(await client.keys_query(), "the query of keys")
        if client.should_claim_keys:
            ok(await client.keys_claim(client.get_users_for_key_claiming()), "the claim of keys")
        for response in await client.send_to_device_messages():
            ok(response, "sending to a device")

    async def until(self, what, condition):
        """Syncs until `condition()` holds, and returns its value."""
        Person.now = f"{self.name} waits for {what}"
        while not (value := condition()):
            await self.turn()
        self.step(f"sees {what}")
        return value

    def find(self, room_id, kind, condition=lambda event: True):
        """The first synced event of class `kind` in the room that fits."""
        for event_room, event in self.events.values():
            if event_room == room_id and isinstance(event, kind) and condition(event):
                return event
        return None

    def find_ephemeral(self, room_id, kind, condition):
        """Whether a typing notice or receipt of class `kind` that fits was synced."""
        return any(
            event_room == room_id and isinstance(event, kind) and condition(event)
            for event_room, event in self.ephemeral
        )

    async def create_room(self, name, invite=(), encrypted=False):
        """Creates a private room, waits for it to come down the sync, and returns its id."""
        initial_state = [ENCRYPTION] if encrypted else []
        created = await self.client.room_create(name=name, invite=invite, initial_state=initial_state)
        room_id = ok(created, "creating a room").room_id
        await self.until(f"the new room “{name}”", lambda: room_id in self.client.rooms)
        return room_id

    async def accept_invite(self, room_id):
        """Waits for the invite, joins, and waits for the room."""
        await self.until("the invite", lambda: room_id in self.client.invited_rooms)
        ok(await self.client.join(room_id), "joining")
        await self.until("the joined room", lambda: room_id in self.client.rooms)

    async def sees_member(self, room_id, user_id):
        """Waits until the user has joined the room."""

        def joined():
            user = self.client.rooms[room_id].users.get(user_id)
            return user is not None and not user.invited

        await self.until(f"{user_id} in the room", joined)

    async def say(self, room_id, body, tx_id=None):
        """Sends a text, encrypted if the room is, and returns the id of its event."""
        self.step(f"says “{body}”")
        content = {"msgtype": "m.text", "body": body}
        sent = await self.client.room_send(
            room_id, "m.room.message", content, tx_id=tx_id, ignore_unverified_devices=True
        )
        return ok(sent, f"sending “{body}”").event_id

    async def hears(self, room_id, sender, body):
        """Waits for a text; in an encrypted room it must have been decrypted."""
        encrypted = self.client.rooms[room_id].encrypted
        what = f"“{body}” from {sender}" + (", decrypted" if encrypted else "")
        event = await self.until(
            what,
            lambda: self.find(room_id, RoomMessageText, lambda e: e.sender == sender and e.body == body),
        )
        expect(event.decrypted == encrypted, f"“{body}” was {'' if encrypted else 'not '}encrypted on its way")
        return event

    async def fetch(self, path):
        """The JSON that the homeserver answers at a path, which no crypto of the client has touched."""
        headers = {"Authorization": f"Bearer {self.client.access_token}"}
        async with await self.client.send("GET", f"/_matrix/client/v3{path}", headers=headers) as response:
            expect(response.status == 200, f"{path} answers 200, not {response.status}")
            return await response.json()

    def unreadable(self):
        """How many events came that could not be decrypted."""
        return sum(isinstance(event, MegolmEvent) for _, event in self.events.values())


async def talk(room_id, one, other, topic):
    """One text each way; both must be read."""
    await one.say(room_id, f"{topic}: hello")
    await other.hears(room_id, one.id, f"{topic}: hello")
    await other.say(room_id, f"{topic}: hello yourself")
    await one.hears(room_id, other.id, f"{topic}: hello yourself")


def arguments(description):
    """A parser with what every script takes."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("homeserver", help="the URL of the homeserver")
    parser.add_argument("--register", action="store_true", help="register the users first")
    parser.add_argument("--timeout", type=float, default=120, help="seconds for all of it (default 120)")
    return parser


def run(script, people, timeout):
    """Runs the script to its end within `timeout` seconds; exits with 1 and a message if it fails."""

    async def bounded():
        try:
            await asyncio.wait_for(script(people), timeout)
        finally:
            for person in people:
                await person.close()

    try:
        asyncio.run(bounded())
    except asyncio.TimeoutError:
        unreadable = ", ".join(f"{person.name}: {person.unreadable()}" for person in people)
        message = f"no end after {timeout:g} s: {Person.now} (events that could not be decrypted: {unreadable})"
        sys.exit(f"FAILED: {message}")
    except Failure as failure:
        sys.exit(f"FAILED: {failure}")
