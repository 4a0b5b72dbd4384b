// Two people with matrix-js-sdk talk through a homeserver, in the clear and encrypted, with a restart of it in between.
//
// When it prints READY FOR RESTART, the homeserver may be killed; a line on stdin says that it runs again.

import { once } from "node:events";
import { createInterface } from "node:readline";

import { Direction } from "matrix-js-sdk";

import { Person, expect, run, scriptArguments, talk } from "./person.mjs";

const LINES = Array.from({ length: 25 }, (_, number) => `line ${number}`);

/** All that two people do. */
async function conversation(people) {
    const [alice, bob] = people;
    for (const person of people) {
        if (args.register) await person.register();
        await person.login();
    }

    const plain = await meet(alice, bob, "In the clear", false);
    await talk(plain, alice, bob, "in the clear");
    await signsOfLife(plain, alice, bob);
    await takeBack(plain, alice, bob);
    await govern(plain, alice, bob);
    await pageBack(alice, bob);

    const secret = await meet(alice, bob, "In secret", true);
    await talk(secret, alice, bob, "in secret");
    await checkCiphertext(secret, alice, bob);

    await acrossRestart(plain, secret, alice, bob);
    await newDevice(secret, people);
}

/** Alice makes a room and invites Bob, who joins. */
async function meet(alice, bob, name, encrypted) {
    const roomId = await alice.createRoom(name, { encrypted });
    await alice.client.invite(roomId, bob.id);
    await bob.acceptInvite(roomId);
    await alice.seesMember(roomId, bob.id);
    expect(bob.room(roomId).name === name, "Bob sees the room's name");
    expect(bob.room(roomId).hasEncryptionStateEvent() === encrypted, "Bob sees whether the room is encrypted");
    return roomId;
}

/** Typing, a read receipt, a reaction, a new display name. */
async function signsOfLife(roomId, alice, bob) {
    await bob.client.sendTyping(roomId, true, 30_000);
    await alice.until("Bob typing", () => alice.member(roomId, bob.id).typing);
    await bob.client.sendTyping(roomId, false, 0);
    await alice.until("that Bob stopped typing", () => !alice.member(roomId, bob.id).typing);

    const said = await alice.say(roomId, "who reads this?");
    await bob.client.sendReadReceipt(await bob.hears(roomId, alice.id, "who reads this?"));
    await alice.until(
        "Bob's receipt",
        () => alice.room(roomId).getReadReceiptForUserId(bob.id, true)?.eventId === said,
    );

    const relation = { rel_type: "m.annotation", event_id: said, key: "👍" };
    await bob.client.sendEvent(roomId, "m.reaction", { "m.relates_to": relation });
    const reaction = await alice.until("Bob's reaction", () =>
        alice.find(roomId, (e) => e.getType() === "m.reaction"),
    );
    expect(reaction.getRelation().event_id === said, "the reaction belongs to the message");
    expect(reaction.getRelation().key === "👍", "the reaction is the one that Bob sent");

    await bob.client.setDisplayName("Robert");
    await alice.until("Bob's new name", () => alice.member(roomId, bob.id).name === "Robert");
}

/** A redaction, seen by the other. */
async function takeBack(roomId, alice, bob) {
    const said = await alice.say(roomId, "a slip of the tongue");
    const heard = await bob.hears(roomId, alice.id, "a slip of the tongue");
    await alice.client.redactEvent(roomId, said, undefined, { reason: "slipped" });
    await bob.until("the redaction", () => heard.isRedacted());
    const stored = await bob.client.fetchRoomEvent(roomId, said);
    expect(!stored.content.body && stored.unsigned.redacted_because, `it is redacted: ${JSON.stringify(stored)}`);
}

/** Bob may set the topic only once Alice has given him the power. */
async function govern(roomId, alice, bob) {
    const setTopic = () => bob.client.sendStateEvent(roomId, "m.room.topic", { topic: "Bob's" }, "");
    const refused = await setTopic().catch((error) => error);
    expect(refused.errcode === "M_FORBIDDEN", `Bob may not set the topic: ${JSON.stringify(refused)}`);
    await alice.client.setPowerLevel(roomId, bob.id, 50);
    await bob.until("his new power", () => bob.member(roomId, bob.id).powerLevel === 50);
    await setTopic();
    await alice.until("the topic", () =>
        alice.find(roomId, (e) => e.getType() === "m.room.topic" && e.getContent().topic === "Bob's"),
    );
}

/** Bob joins late, and has the SDK page back to the beginning: it finds all that was said, once and in order. */
async function pageBack(alice, bob) {
    const roomId = await alice.createRoom("Much was said");
    for (const line of LINES) await alice.say(roomId, line);
    await alice.client.invite(roomId, bob.id);
    await bob.acceptInvite(roomId);

    const timeline = bob.room(roomId).getLiveTimeline();
    expect(timeline.getPaginationToken(Direction.Backward), "there is more than the sync brought");
    while (await bob.client.paginateEventTimeline(timeline, { backwards: true, limit: 7 }));
    const events = timeline.getEvents();
    expect(new Set(events.map((e) => e.getId())).size === events.length, "no event comes twice");
    expect(events[0].getType() === "m.room.create", "the history goes back to the beginning");
    const said = events.filter((e) => e.getType() === "m.room.message").map((e) => e.getContent().body);
    expect(said.join() === LINES.join(), `nothing said is missing or out of order: ${said}`);
}

/** What the server holds of a secret does not show it. */
async function checkCiphertext(roomId, alice, bob) {
    const said = await alice.say(roomId, "for Bob's eyes only");
    await bob.hears(roomId, alice.id, "for Bob's eyes only");
    const stored = await bob.client.fetchRoomEvent(roomId, said);
    const json = JSON.stringify(stored);
    expect(stored.type === "m.room.encrypted" && !json.includes("eyes"), `the server has ciphertext: ${json}`);
}

/** Both go on with the tokens of before, without a gap. */
async function acrossRestart(plain, secret, alice, bob) {
    await restart();
    const resets = [alice.timelineResets, bob.timelineResets];
    for (const person of [alice, bob]) {
        const who = await person.client.whoami();
        expect(who.device_id === person.client.getDeviceId(), "the token is still good");
        person.client.retryImmediately();
    }
    await talk(plain, alice, bob, "after the restart");
    await talk(secret, alice, bob, "after the restart");
    for (const person of [alice, bob]) await person.client.getCrypto().forceDiscardSession(secret);
    await talk(secret, bob, alice, "with new keys");
    expect([alice.timelineResets, bob.timelineResets].join() === resets.join(), "the restart left no gap");
}

/** Tells the harness to restart the homeserver, and waits for its word that it has. */
async function restart() {
    Person.now = "the homeserver restarts";
    process.stdout.write("READY FOR RESTART\n");
    const stdin = createInterface({ input: process.stdin });
    const [line] = await Promise.race([once(stdin, "line"), once(stdin, "close")]);
    expect(line !== undefined, "a line on stdin says that the homeserver is back");
    stdin.close();
}

/** Bob logs in on a second device, which Alice's client notices and lets read what comes from then on. */
async function newDevice(roomId, people) {
    const [alice, bob] = people;
    const second = new Person(args.homeserver, bob.name, bob.password);
    people.push(second);
    await second.login();
    await second.until("the encrypted room", () => second.room(roomId)?.hasEncryptionStateEvent());

    const deviceId = second.client.getDeviceId();
    let devices = new Map();
    alice.client.on("crypto.devicesUpdated", async (users) => {
        if (users.includes(bob.id)) devices = await alice.client.getCrypto().getUserDeviceInfo([bob.id]);
        alice.changes.emit("change");
    });
    devices = await alice.client.getCrypto().getUserDeviceInfo([bob.id]);
    await alice.until("Bob's second device", () => devices.get(bob.id)?.has(deviceId));

    await alice.say(roomId, "welcome on your second device");
    await second.hears(roomId, alice.id, "welcome on your second device");
    await bob.hears(roomId, alice.id, "welcome on your second device");
}

const args = scriptArguments(["homeserver", "alice", "alicePassword", "bob", "bobPassword"]);
const people = [
    new Person(args.homeserver, args.alice, args.alicePassword),
    new Person(args.homeserver, args.bob, args.bobPassword),
];
await run(conversation, people, Number(args.timeout));
