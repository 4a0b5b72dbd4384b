#!/usr/bin/env python3
"""Two people with matrix-nio talk through a homeserver, in the clear and encrypted, with a restart of it in between.

When it prints READY FOR RESTART, the homeserver may be killed; a line on stdin says that it runs again.
"""

import asyncio
import sys
from urllib.parse import quote

from nio import (
    MessageDirection,
    PowerLevelsEvent,
    ReactionEvent,
    ReceiptEvent,
    RedactedEvent,
    RedactionEvent,
    RoomMemberEvent,
    RoomMessageText,
    RoomTopicEvent,
    TypingNoticeEvent,
)
from person import Person, arguments, expect, ok, run, talk

LINES = [f"line {number}" for number in range(25)]


async def conversation(people):
    """All that two people do."""
    alice, bob = people[:2]
    for person in (alice, bob):
        if args.register:
            await person.register()
        await person.login()

    plain = await meet(alice, bob, "In the clear", encrypted=False)
    await talk(plain, alice, bob, "in the clear")
    await signs_of_life(plain, alice, bob)
    await take_back(plain, alice, bob)
    await govern(plain, alice, bob)
    await page_back(plain, alice, bob)

    secret = await meet(alice, bob, "In secret", encrypted=True)
    await talk(secret, alice, bob, "in secret")
    await check_ciphertext(secret, alice, bob)

    await across_restart(plain, secret, alice, bob)
    await new_device(secret, alice, people)


async def meet(alice, bob, name, encrypted):
    """Alice makes a room and invites Bob, who joins."""
    room_id = await alice.create_room(name, encrypted=encrypted)
    ok(await alice.client.room_invite(room_id, bob.id), "inviting")
    await bob.accept_invite(room_id)
    await alice.sees_member(room_id, bob.id)
    expect(bob.client.rooms[room_id].name == name, "Bob sees the room's name")
    expect(bob.client.rooms[room_id].encrypted == encrypted, "Bob sees whether the room is encrypted")
    return room_id


async def signs_of_life(room_id, alice, bob):
    """Typing, a read receipt, a reaction, a new display name."""
    ok(await bob.client.room_typing(room_id, True), "typing")
    await alice.until(
        "Bob typing",
        lambda: alice.find_ephemeral(room_id, TypingNoticeEvent, lambda e: bob.id in e.users),
    )
    ok(await bob.client.room_typing(room_id, False), "typing no more")
    await alice.until("that Bob stopped typing", lambda: not alice.client.rooms[room_id].typing_users)

    said = await alice.say(room_id, "who reads this?")
    await bob.hears(room_id, alice.id, "who reads this?")
    ok(await bob.client.update_receipt_marker(room_id, said), "sending a receipt")
    await alice.until(
        "Bob's receipt",
        lambda: alice.find_ephemeral(
            room_id,
            ReceiptEvent,
            lambda e: any(r.event_id == said and r.user_id == bob.id for r in e.receipts),
        ),
    )

    relation = {"rel_type": "m.annotation", "event_id": said, "key": "👍"}
    ok(await bob.client.room_send(room_id, "m.reaction", {"m.relates_to": relation}), "reacting")
    reaction = await alice.until("Bob's reaction", lambda: alice.find(room_id, ReactionEvent))
    expect((reaction.reacts_to, reaction.key) == (said, "👍"), "the reaction belongs to the message")

    ok(await bob.client.set_displayname("Robert"), "setting the display name")
    await alice.until(
        "Bob's new name",
        lambda: alice.find(room_id, RoomMemberEvent, lambda e: e.content.get("displayname") == "Robert"),
    )
    expect(alice.client.rooms[room_id].user_name(bob.id) == "Robert", "the room has Bob's new name")


async def take_back(room_id, alice, bob):
    """A redaction, seen by the other."""
    said = await alice.say(room_id, "a slip of the tongue")
    await bob.hears(room_id, alice.id, "a slip of the tongue")
    ok(await alice.client.room_redact(room_id, said, reason="slipped"), "redacting")
    await bob.until("the redaction", lambda: bob.find(room_id, RedactionEvent, lambda e: e.redacts == said))
    stored = ok(await bob.client.room_get_event(room_id, said), "reading the redacted event").event
    expect(isinstance(stored, RedactedEvent), f"the message is redacted: {stored.source}")


async def govern(room_id, alice, bob):
    """Bob may set the topic only once Alice has given him the power."""
    refused = await bob.client.room_put_state(room_id, "m.room.topic", {"topic": "Bob's"})
    expect(getattr(refused, "status_code", None) == "M_FORBIDDEN", f"Bob may not set the topic: {refused}")

    levels = ok(await alice.client.room_get_state_event(room_id, "m.room.power_levels"), "power levels").content
    levels.setdefault("users", {})[bob.id] = 50
    ok(await alice.client.room_put_state(room_id, "m.room.power_levels", levels), "setting power levels")
    await bob.until(
        "his new power",
        lambda: bob.find(room_id, PowerLevelsEvent, lambda e: e.power_levels.users.get(bob.id) == 50),
    )

    ok(await bob.client.room_put_state(room_id, "m.room.topic", {"topic": "Bob's"}), "setting the topic")
    await alice.until("the topic", lambda: alice.find(room_id, RoomTopicEvent, lambda e: e.topic == "Bob's"))


async def page_back(room_id, alice, bob):
    """Bob was away while Alice said much: timeline and pages together have it all, once and in order."""
    for line in LINES:
        await alice.say(room_id, line)
    await bob.hears(room_id, alice.id, LINES[-1])
    timeline = bob.last_sync.rooms.join[room_id].timeline
    expect(timeline.limited, "the timeline of a long absence is limited")

    older, token = [], timeline.prev_batch
    while token:
        page = ok(
            await bob.client.room_messages(room_id, token, direction=MessageDirection.back, limit=7),
            "paging back",
        )
        older += page.chunk
        token = page.end if page.chunk else None
    history = older[::-1] + timeline.events
    ids = [event.event_id for event in history]
    expect(len(set(ids)) == len(ids), "no event comes twice")
    expect(history[0].source["type"] == "m.room.create", "the history goes back to the beginning")
    said = [event.body for event in history if isinstance(event, RoomMessageText)]
    expect(said[-len(LINES) :] == LINES, f"nothing said is missing or out of order: {said}")
    missing = [
        event.source
        for event_room, event in bob.events.values()
        if event_room == room_id and event.event_id not in ids
    ]
    expect(not missing, f"all that was synced is in the history too: {missing}")


async def check_ciphertext(room_id, alice, bob):
    """What the server holds of a secret does not show it."""
    said = await alice.say(room_id, "for Bob's eyes only")
    await bob.hears(room_id, alice.id, "for Bob's eyes only")
    stored = await bob.fetch(f"/rooms/{quote(room_id)}/event/{quote(said)}")
    expect(stored["type"] == "m.room.encrypted" and "eyes" not in str(stored), f"the server has ciphertext: {stored}")


async def across_restart(plain, secret, alice, bob):
    """What was said just before the restart arrives after it, once, and the conversation goes on."""
    last = "the last words before the restart"
    alice.client.invalidate_outbound_session(secret)
    sent = await alice.say(plain, last, tx_id="last-words")
    await alice.say(secret, last)
    since = bob.client.next_batch

    await restart()

    for person in (alice, bob):
        who = ok(await person.client.whoami(), "asking whose token it is")
        expect((who.user_id, who.device_id) == (person.id, person.client.device_id), "the token is still good")
    again = await alice.say(plain, last, tx_id="last-words")
    expect(again == sent, "the same transaction gives the same event after the restart")
    expect(bob.client.next_batch == since, "Bob goes on from his token of before")
    await bob.hears(plain, alice.id, last)
    await bob.hears(secret, alice.id, last)
    await talk(plain, alice, bob, "after the restart")
    await talk(secret, alice, bob, "after the restart")
    for person in (alice, bob):
        person.client.invalidate_outbound_session(secret)
    await talk(secret, bob, alice, "with new keys")


async def restart():
    """Tells the harness to restart the homeserver, and waits for its word that it has."""
    Person.now = "the homeserver restarts"
    print("READY FOR RESTART", flush=True)
    stdin = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(stdin), sys.stdin)
    expect(await stdin.readline(), "a line on stdin says that the homeserver is back")


async def new_device(room_id, alice, people):
    """Bob logs in on a second device, which Alice's client notices and lets read what comes from then on."""
    bob = people[1]
    second = Person(args.homeserver, bob.name, bob.password)
    people.append(second)
    await second.login()
    await alice.until(
        "Bob's second device",
        lambda: second.client.device_id in alice.client.device_store[bob.id],
    )
    await alice.say(room_id, "welcome on your second device")
    await second.hears(room_id, alice.id, "welcome on your second device")
    await bob.hears(room_id, alice.id, "welcome on your second device")


if __name__ == "__main__":
    parser = arguments(__doc__)
    for who in ("alice", "bob"):
        parser.add_argument(who, help="user name")
        parser.add_argument(f"{who}_password", help="password")
    args = parser.parse_args()
    pair = [
        Person(args.homeserver, args.alice, args.alice_password),
        Person(args.homeserver, args.bob, args.bob_password),
    ]
    run(conversation, pair, args.timeout)
    print("DONE")
