#!/usr/bin/env python3
"""One half of an encrypted conversation: the other half is another script, perhaps with another client.

One half is started first; it prints READY FOR INVITE and joins the room that the peer invites it to. The other is
started with --create. Each says one text and ends when it has decrypted the peer's.
"""

from person import Person, arguments, expect, run


async def peer(people):
    """Meets the peer in an encrypted room, says a text and hears one."""
    (me,) = people
    if args.register:
        await me.register()
    await me.login()
    if args.create:
        room_id = await me.create_room("Two kinds of client", invite=[args.peer], encrypted=True)
    else:
        print("READY FOR INVITE", flush=True)
        room_id = await me.until("an invite", lambda: next(iter(me.client.invited_rooms), None))
        await me.accept_invite(room_id)
    await me.sees_member(room_id, args.peer)
    expect(me.client.rooms[room_id].encrypted, "the room is encrypted")
    await me.say(room_id, f"hello from {me.id}")
    await me.hears(room_id, args.peer, f"hello from {args.peer}")


if __name__ == "__main__":
    parser = arguments(__doc__)
    parser.add_argument("user", help="user name")
    parser.add_argument("password", help="password")
    parser.add_argument("peer", help="the peer's full user id")
    parser.add_argument("--create", action="store_true", help="create the room and invite the peer")
    args = parser.parse_args()
    run(peer, [Person(args.homeserver, args.user, args.password)], args.timeout)
    print("DONE")
