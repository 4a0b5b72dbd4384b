// A person with a matrix-js-sdk client, and what such a person does and expects to see.

import { EventEmitter, once } from "node:events";
import { parseArgs } from "node:util";

import * as sdk from "matrix-js-sdk";

// The SDK writes its log to the console: keep it off stdout, where the harness listens, and show it on demand only.
const log = process.env.CLIENT_LOG ? console.error : () => {};
for (const method of ["debug", "info", "log", "trace", "warn"]) console[method] = log;

/** What the SDK tells of that may end a wait. */
const CHANGES = [
    sdk.ClientEvent.Sync,
    sdk.ClientEvent.Room,
    sdk.MatrixEventEvent.Decrypted,
    sdk.RoomEvent.MyMembership,
    sdk.RoomEvent.Receipt,
    sdk.RoomEvent.Redaction,
    sdk.RoomEvent.Timeline,
    sdk.RoomMemberEvent.Membership,
    sdk.RoomMemberEvent.Name,
    sdk.RoomMemberEvent.Typing,
    sdk.RoomStateEvent.Events,
];

const ENCRYPTION = {
    type: "m.room.encryption",
    state_key: "",
    content: { algorithm: "m.megolm.v1.aes-sha2" },
};

/** What was expected did not happen. */
export class Failure extends Error {}

/** Fails the script unless `condition` holds. */
export function expect(condition, what) {
    if (!condition) throw new Failure(`expected that ${what}`);
}

/** One device of one user, syncing in the background from login until close. */
export class Person {
    /** What is being done or waited for, for the message of a timeout. */
    static now = "nobody has done anything";

    constructor(homeserver, name, password) {
        Object.assign(this, { homeserver, name, password });
        this.changes = new EventEmitter();
        this.keysUploaded = false;
        this.timelineResets = 0;
    }

    get id() {
        return this.client.getUserId();
    }

    /** Tells of what the person does next. */
    step(what) {
        Person.now = `${this.name} ${what}`;
        process.stderr.write(`[${this.name}] ${what}\n`);
    }

    /** Registers through the stages that the homeserver asks for, of which m.login.dummy must be all. */
    async register() {
        this.step("registers");
        const client = sdk.createClient({ baseUrl: this.homeserver });
        const request = { username: this.name, password: this.password, inhibit_login: true };
        const asked = await client.registerRequest(request).then(
            () => expect(false, "registration asks for authentication"),
            (error) => error,
        );
        const dummy = asked.data?.flows?.some(({ stages }) => stages.join() === "m.login.dummy");
        expect(dummy, `registration by m.login.dummy is offered: ${asked}`);
        await client.registerRequest({ ...request, auth: { type: "m.login.dummy", session: asked.data.session } });
    }

    /** Logs in a new device, and waits for its first sync and for its keys to be uploaded. */
    async login() {
        this.step("logs in");
        const session = await sdk.createClient({ baseUrl: this.homeserver }).loginRequest({
            type: "m.login.password",
            identifier: { type: "m.id.user", user: this.name },
            password: this.password,
            initial_device_display_name: "matrix-js-sdk",
        });
        this.client = sdk.createClient({
            baseUrl: this.homeserver,
            userId: session.user_id,
            deviceId: session.device_id,
            accessToken: session.access_token,
            fetchFn: (url, options) => this.#fetch(url, options),
        });
        for (const change of CHANGES) this.client.on(change, () => this.changes.emit("change"));
        this.client.on(sdk.RoomEvent.TimelineReset, () => (this.timelineResets += 1));
        await this.client.initRustCrypto({ useIndexedDB: false });
        await this.client.startClient({ lazyLoadMembers: true });
        await this.until("the first sync", () => this.client.isInitialSyncComplete());
        await this.until("its keys uploaded", () => this.keysUploaded);
    }

    /** Fetches, and notices when the device's keys have reached the homeserver, of which the SDK tells nothing. */
    async #fetch(url, options) {
        const response = await fetch(url, options);
        if (response.ok && new URL(url).pathname.endsWith("/keys/upload")) {
            this.keysUploaded = true;
            this.changes.emit("change");
        }
        return response;
    }

    /** Waits until `condition()` holds, and returns its value. */
    async until(what, condition) {
        Person.now = `${this.name} waits for ${what}`;
        let value;
        while (!(value = condition())) await once(this.changes, "change");
        this.step(`sees ${what}`);
        return value;
    }

    room(roomId) {
        return this.client.getRoom(roomId);
    }

    member(roomId, userId) {
        return this.room(roomId).getMember(userId);
    }

    /** The first event in the room's live timeline that fits. */
    find(roomId, condition) {
        return this.room(roomId).getLiveTimeline().getEvents().find(condition);
    }

    /** Creates a private room, waits for it to come down the sync, and returns its id. */
    async createRoom(name, { invite = [], encrypted = false } = {}) {
        const initial_state = encrypted ? [ENCRYPTION] : [];
        const created = await this.client.createRoom({ preset: "private_chat", name, invite, initial_state });
        await this.until(`the new room “${name}”`, () => this.room(created.room_id)?.name === name);
        return created.room_id;
    }

    /** Waits for an invite, to any room unless one is named, and returns the room's id. */
    async invited(roomId) {
        const invite = (room) => room.getMyMembership() === "invite" && (!roomId || room.roomId === roomId);
        return (await this.until("the invite", () => this.client.getRooms().find(invite))).roomId;
    }

    /** Waits for the invite, joins, and waits for the room. */
    async acceptInvite(roomId) {
        const invitedTo = await this.invited(roomId);
        await this.client.joinRoom(invitedTo);
        await this.until("the joined room", () =>
            this.find(invitedTo, (e) => e.getStateKey() === this.id && e.getContent().membership === "join"),
        );
        return invitedTo;
    }

    /** Waits until the user has joined the room. */
    async seesMember(roomId, userId) {
        await this.until(`${userId} in the room`, () => this.member(roomId, userId)?.membership === "join");
    }

    /** Sends a text, encrypted if the room is, and returns the id of its event. */
    async say(roomId, body) {
        this.step(`says “${body}”`);
        return (await this.client.sendTextMessage(roomId, body)).event_id;
    }

    /** Waits for a text; in an encrypted room it must have been decrypted. */
    async hears(roomId, sender, body) {
        const encrypted = this.room(roomId).hasEncryptionStateEvent();
        const what = `“${body}” from ${sender}${encrypted ? ", decrypted" : ""}`;
        const heard = (e) =>
            e.getSender() === sender && e.getType() === "m.room.message" && e.getContent().body === body;
        const event = await this.until(what, () => this.find(roomId, heard));
        expect(event.isEncrypted() === encrypted, `“${body}” was ${encrypted ? "" : "not "}encrypted on its way`);
        return event;
    }

    /** How many events came that could not be decrypted. */
    unreadable() {
        const events = this.client?.getRooms().flatMap((room) => room.getLiveTimeline().getEvents()) ?? [];
        return events.filter((event) => event.isDecryptionFailure()).length;
    }
}

/** One text each way; both must be read. */
export async function talk(roomId, one, other, topic) {
    await one.say(roomId, `${topic}: hello`);
    await other.hears(roomId, one.id, `${topic}: hello`);
    await other.say(roomId, `${topic}: hello yourself`);
    await one.hears(roomId, other.id, `${topic}: hello yourself`);
}

/** The options that every script takes, and its positional arguments by name. */
export function scriptArguments(names, options = {}) {
    const { values, positionals } = parseArgs({
        allowPositionals: true,
        options: { register: { type: "boolean" }, timeout: { type: "string", default: "120" }, ...options },
    });
    if (positionals.length !== names.length) {
        const flags = ["[--register] [--timeout SECONDS]", ...Object.keys(options).map((name) => `[--${name}]`)];
        fail(`wrong arguments; usage: ${[process.argv[1], ...flags, ...names.map((name) => name.toUpperCase())].join(" ")}`);
    }
    return { ...values, ...Object.fromEntries(names.map((name, index) => [name, positionals[index]])) };
}

/** Runs the script to its end within `timeout` seconds; exits with 1 and a message if it fails. */
export async function run(script, people, timeout) {
    setTimeout(() => {
        const unreadable = people.map((person) => `${person.name}: ${person.unreadable()}`).join(", ");
        fail(`no end after ${timeout} s: ${Person.now} (events that could not be decrypted: ${unreadable})`);
    }, timeout * 1000);
    try {
        await script(people);
    } catch (error) {
        fail(error instanceof Failure ? error.message : `${Person.now}: ${error.stack}`);
    }
    for (const person of people) person.client.stopClient();
    process.stdout.write("DONE\n");
    process.exit(0);
}

function fail(message) {
    process.stderr.write(`FAILED: ${message}\n`);
    process.exit(1);
}
