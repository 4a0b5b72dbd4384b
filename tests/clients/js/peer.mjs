// One half of an encrypted conversation: the other half is another script, perhaps with another client.
//
// One half is started first; it prints READY FOR INVITE and joins the room that the peer invites it to. The other is
// started with --create. Each says one text and ends when it has decrypted the peer's.

import { Person, expect, run, scriptArguments } from "./person.mjs";

/** Meets the peer in an encrypted room, says a text and hears one. */
async function peer([me]) {
    if (args.register) await me.register();
    await me.login();
    let roomId;
    if (args.create) {
        roomId = await me.createRoom("Two kinds of client", { invite: [args.peer], encrypted: true });
    } else {
        process.stdout.write("READY FOR INVITE\n");
        roomId = await me.acceptInvite();
    }
    await me.seesMember(roomId, args.peer);
    expect(me.room(roomId).hasEncryptionStateEvent(), "the room is encrypted");
    await me.say(roomId, `hello from ${me.id}`);
    await me.hears(roomId, args.peer, `hello from ${args.peer}`);
}

const args = scriptArguments(["homeserver", "user", "password", "peer"], { create: { type: "boolean" } });
await run(peer, [new Person(args.homeserver, args.user, args.password)], Number(args.timeout));
