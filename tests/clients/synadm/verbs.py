#!/usr/bin/env python3
"""An administrator uses synadm: every verb for rooms, users, registration tokens, history, notices and the version.

synadm's own commands run in this process, as its command line would run them, and what they print is looked at. The
server needs a shared secret for registration, and server notices (server_notices.localpart).
"""

import argparse
import hashlib
import hmac
import json
import os
import sys
import tempfile
import time
import traceback

# synadm logs into the home folder.
HOME = tempfile.TemporaryDirectory(prefix="everfold-synadm-")
os.environ["HOME"] = HOME.name

import requests
import yaml
from click.testing import CliRunner
from synadm import cli

#: The groups of verbs that are used, each whole.
GROUPS = ["room", "user", "regtok", "history", "notice", "matrix"]
#: Verbs about what the server does not have.
WITHOUT = {("user", "media")}

used = set()


class Failure(Exception):
    """What was expected did not happen."""


def expect(condition, what):
    """Fails the script unless `condition` holds."""
    if not condition:
        raise Failure(f"expected that {what}")


def synadm(*words, output="json", status=0):
    """Runs a verb; what it prints."""
    print("synadm", *words, file=sys.stderr)
    used.add(tuple(words[:2]))
    options = ["--batch", "--output", output, "--config-file", CONFIG]
    result = CliRunner().invoke(cli.root, options + list(words))
    unforeseen = result.exception and not isinstance(result.exception, SystemExit)
    if unforeseen or result.exit_code != status:
        if unforeseen:
            traceback.print_exception(result.exception)
        raise Failure(f"synadm {' '.join(words)} ended with {result.exit_code} and said: {result.output}")
    return result.stdout


def answer(*words):
    """Runs a verb that prints JSON; the last value, since some verbs say more before."""
    text = synadm(*words)
    begins = [at for at in range(len(text)) if text[at] in "[{" and (at == 0 or text[at - 1] == "\n")]
    for at in reversed(begins):
        try:
            return json.loads(text[at:])
        except ValueError:
            continue
    raise Failure(f"synadm {' '.join(words)} printed no JSON: {text}")


def until(status, *words):
    """Runs a verb that tells how a job is, until it is so."""
    deadline = time.monotonic() + args.timeout
    while True:
        told = answer(*words)
        stands = {job.get("status") for job in [told, *told.get("results", [])]}
        if status in stands:
            return told
        expect("errcode" not in told and "failed" not in stands, f"{words} goes on: {told}")
        expect(time.monotonic() < deadline, f"{words} ends: {told}")
        time.sleep(0.05)


class Person:
    """Somebody with an account and a device, on the client-server API."""

    def __init__(self, name, login):
        self.name, self.id, self.token = name, login["user_id"], login["access_token"]

    def ask(self, method, path, body=None, status=200):
        """Makes a request that must be answered with a status; the answer."""
        headers = {"Authorization": f"Bearer {self.token}"}
        reply = requests.request(method, f"{args.url}/_matrix/client/v3{path}", json=body, headers=headers, timeout=60)
        expect(reply.status_code == status, f"{method} {path} gives {status}: {reply.status_code} {reply.text}")
        return reply.json()

    def room(self, **body):
        return self.ask("POST", "/createRoom", {"preset": "public_chat", **body})["room_id"]

    def say(self, room, text):
        transaction = f"{time.monotonic_ns()}"
        body = {"msgtype": "m.text", "body": text}
        return self.ask("PUT", f"/rooms/{room}/send/m.room.message/{transaction}", body)["event_id"]

    def join(self, room, status=200):
        return self.ask("POST", f"/join/{room}", {}, status)

    def device(self):
        return self.ask("GET", "/account/whoami")["device_id"]

    def rooms(self):
        return self.ask("GET", "/joined_rooms")["joined_rooms"]


def register(name, admin=False):
    """An account by the shared secret."""
    url = f"{args.url}/_synapse/admin/v1/register"
    nonce = requests.get(url, timeout=60).json()["nonce"]
    password = f"password of {name}"
    words = [nonce, name, password, "admin" if admin else "notadmin"]
    mac = hmac.new(args.secret.encode(), "\0".join(words).encode(), hashlib.sha1).hexdigest()
    body = {"nonce": nonce, "username": name, "password": password, "admin": admin, "mac": mac}
    reply = requests.post(url, json=body, timeout=60)
    expect(reply.status_code == 200, f"{name} is registered: {reply.text}")
    return Person(name, reply.json())


def log_in(name, password):
    """A new session, or the status and code of the refusal."""
    identifier = {"type": "m.id.user", "user": name}
    body = {"type": "m.login.password", "identifier": identifier, "password": password}
    reply = requests.post(f"{args.url}/_matrix/client/v3/login", json=body, timeout=60)
    return Person(name, reply.json()) if reply.status_code == 200 else (reply.status_code, reply.json()["errcode"])


def version():
    expect(answer("version")["server_version"], "the version is told")
    expect(answer("raw", "v1/server_version")["server_version"], "raw asks what version asks")


def registration_tokens():
    made = answer("regtok", "new", "--token", "come-in", "--uses-allowed", "2", "--expiry-ts", "4102444800000")
    expected = {"token": "come-in", "uses_allowed": 2, "pending": 0, "completed": 0, "expiry_time": 4102444800000}
    expect(made == expected, f"the token is as asked for: {made}")
    expect(len(answer("regtok", "new", "--length", "24")["token"]) == 24, "the server makes up a token")
    used_up = answer("regtok", "new", "--token", "used-up", "--uses-allowed", "0")
    expect(used_up["expiry_time"] is None, "it doesn't end")
    listed = [token["token"] for token in answer("regtok", "list", "--timestamp")["registration_tokens"]]
    expect(len(listed) == 3 and "come-in" in listed, f"three are listed: {listed}")
    expect(len(answer("regtok", "list", "--valid")["registration_tokens"]) == 2, "two are valid")
    invalid = answer("regtok", "list", "--invalid")["registration_tokens"]
    expect([token["token"] for token in invalid] == ["used-up"], "one is not")
    expect("come-in" in synadm("regtok", "list", output="human"), "a person can read the list")
    expect(answer("regtok", "details", "come-in", "--timestamp") == made, "its details are the same")
    changed = answer("regtok", "update", "come-in", "--uses-allowed", "-1", "--expiry-ts", "-1")
    expect(changed["uses_allowed"] is None and changed["expiry_time"] is None, "the limits go away")
    expect("successfully deleted" in synadm("regtok", "delete", "come-in"), "it is deleted")
    gone = answer("regtok", "details", "come-in")
    expect(gone == {"errcode": "M_NOT_FOUND", "error": "No such registration token: come-in"}, f"it is gone: {gone}")


def notices():
    anna, bert = register("noticed-anna"), register("noticed-bert")
    sent = answer("notice", "send", anna.id, "plain words", "<b>formatted words</b>")
    expect(sent[0]["event_id"].startswith("$"), f"a notice is sent: {sent}")
    both = answer("notice", "send", "--regex", "@noticed-.*", "for both")
    expect(len(both) == 2 and all("event_id" in one for one in both), f"both get one: {both}")
    invited = anna.ask("GET", "/sync")["rooms"]["invite"]
    expect(len(invited) == 1, f"anna has one room for notices: {invited}")
    (room,) = invited
    anna.join(room)
    page = anna.ask("GET", f"/rooms/{room}/messages?dir=f&limit=50")["chunk"]
    told = [event["content"] for event in page if event["type"] == "m.room.message"]
    expect([content["body"] for content in told] == ["plain words", "for both"], f"anna reads them: {told}")
    expect(told[0]["formatted_body"] == "<b>formatted words</b>", "with their format")
    refused = answer("notice", "send", "@nobody:elsewhere.example", "words")
    expect(refused[0]["errcode"] == "M_UNKNOWN", f"others' users get none: {refused}")


def matrix(admin):
    login = answer("matrix", "login", admin.id, "--password", "password of root")
    expect(login["user_id"] == admin.id and login["access_token"], f"synadm logs in: {login}")
    who = answer("matrix", "raw", "client/v3/account/whoami", "--token", login["access_token"])
    expect(who["user_id"] == admin.id and who["device_id"] == login["device_id"], f"with a token of its own: {who}")


def rooms(admin):
    anna, bert = register("room-anna"), register("room-bert")
    hall = anna.room(name="The Hall", room_alias_name="hall", topic="Talk")
    yard = anna.room(name="The Yard")
    bert.join(hall)

    listed = answer("room", "list", "--sort", "joined_members")
    names = [room["name"] for room in listed["rooms"]]
    expect(listed["total_rooms"] >= 2 and names.index("The Hall") < names.index("The Yard"), f"the largest first: {names}")
    back = [room["name"] for room in answer("room", "list", "--sort", "joined_members", "--reverse")["rooms"]]
    expect(back == names[::-1], f"and the other way round: {back}")
    page = answer("room", "list", "--limit", "1", "--from", "1")
    expect(len(page["rooms"]) == 1 and page["offset"] == 1 and page["prev_batch"] == 0, f"a page of one: {page}")
    expect("The Hall" in synadm("room", "list", output="human"), "a person can read the list")
    found = answer("room", "list", "--name", "hall", "--not-empty")
    expect([room["room_id"] for room in found["rooms"]] == [hall], f"the hall is found: {found}")
    expect(answer("room", "search", "yard")["rooms"][0]["room_id"] == yard, "and the yard")

    details = answer("room", "details", hall)
    for key, value in {"name": "The Hall", "topic": "Talk", "joined_members": 2, "creator": anna.id,
                       "canonical_alias": f"#hall:{SERVER}", "forgotten": False}.items():
        expect(details[key] == value, f"{key} is {value}: {details}")
    gone = answer("room", "details", f"!nothing:{SERVER}")
    expect(gone == {"errcode": "M_NOT_FOUND", "error": "Room not found"}, f"what isn't there is said: {gone}")
    members = answer("room", "members", hall)
    expect(members["total"] == 2 and sorted(members["members"]) == [anna.id, bert.id], f"two members: {members}")
    expect("Total members in room: 2" in synadm("room", "members", hall, output="human"), "for a person, too")
    types = {event["type"] for event in answer("room", "state", hall)["state"]}
    expect({"m.room.create", "m.room.name", "m.room.power_levels"} <= types, f"the state: {types}")
    powers = answer("room", "power-levels", "--room-id", hall)
    expect(powers["total_rooms"] == 1 and powers["rooms_w_power_levels_curr_batch"] == 1, f"its power levels: {powers}")
    expect(json.loads(synadm("room", "resolve", f"#hall:{SERVER}")) == hall, "the alias is resolved")
    expect(answer("room", "resolve", "--reverse", hall) == {"aliases": [f"#hall:{SERVER}"]}, "and back")

    carl = register("room-carl")
    admin.join(hall)
    expect(answer("room", "join", f"#hall:{SERVER}", carl.id) == {"room_id": hall}, "carl is brought in")
    expect(carl.rooms() == [hall], "and is there")
    expect(answer("room", "make-admin", hall, "--user-id", carl.id) == {}, "and becomes its administrator")
    levels = carl.ask("GET", f"/rooms/{hall}/state/m.room.power_levels")
    expect(levels["users"][carl.id] >= 100, f"with the power: {levels}")

    expect(answer("room", "block", yard, "--block") == {"block": True}, "the yard is blocked")
    expect(answer("room", "block-status", yard) == {"block": True, "user_id": admin.id}, "by the administrator")
    bert.join(yard, status=403)
    expect(answer("room", "block", yard, "--unblock") == {"block": False}, "no longer")
    expect(answer("room", "block-status", yard) == {"block": False}, "for anybody")
    bert.join(yard)
    return hall, yard, anna, bert


def room_deletion(hall, yard, anna, bert):
    moved = answer("room", "delete", hall, "--new-room-user-id", anna.id, "--room-name", "Moved",
                   "--message", "It was bad.", "--block")
    done = until("complete", "room", "delete-status", "--delete-id", moved["delete_id"])
    expect({anna.id, bert.id} <= set(done["shutdown_room"]["kicked_users"]), f"they are moved: {done}")
    new = done["shutdown_room"]["new_room_id"]
    expect(new in bert.rooms() and hall not in bert.rooms(), f"bert is in the new room: {bert.rooms()}")
    by_room = until("complete", "room", "delete-status", "--room-id", hall)
    expect(by_room["results"][0]["delete_id"] == moved["delete_id"], f"it is found by the room, too: {by_room}")
    expect("Room not found." in synadm("room", "delete", hall, status=1), "it is gone")
    at_once = answer("room", "delete", yard, "--v1")
    expect(sorted(at_once["kicked_users"]) == [anna.id, bert.id] and at_once["new_room_id"] is None, f"{at_once}")
    expect(answer("room", "details", yard)["errcode"] == "M_NOT_FOUND", "the yard is gone, too")

    empty = anna.room(name="Left")
    anna.ask("POST", f"/rooms/{empty}/leave", {})
    dry = answer("room", "purge-empty", "--dry-run")
    expect(empty in dry and new not in dry, f"what would be purged: {dry}")
    expect("delete_id" in synadm("room", "purge-empty"), "the empty rooms are purged")
    until("complete", "room", "delete-status", "--room-id", empty)


def history():
    anna = register("history-anna")
    room = anna.room()
    early, late = anna.say(room, "early"), anna.say(room, "late")
    begun = answer("history", "purge", room, "--before-event-id", late, "--delete-local")
    until("complete", "history", "purge-status", begun["purge_id"])
    anna.ask("GET", f"/rooms/{room}/event/{early}", status=404)
    anna.ask("GET", f"/rooms/{room}/event/{late}")
    expect(answer("history", "purge-status", "nothing")["errcode"] == "M_NOT_FOUND", "no such purge")


def redaction():
    anna = register("redacted-anna")
    room = anna.room()
    said = anna.say(room, "spam")
    job = answer("user", "redact", anna.id, "--reason", "spam")
    until("complete", "user", "redact-status", job["redact_id"])
    event = anna.ask("GET", f"/rooms/{room}/event/{said}")
    expect(event["content"] == {}, f"it is redacted: {event}")


def users(admin):
    made = answer("user", "modify", "user-anna", "--password", "a long password", "--display-name", "Anna",
                  "--threepid", "email", "anna@example.org", "--user-type", "bot", "--admin")
    anna = f"@user-anna:{SERVER}"
    for key, value in {"name": anna, "displayname": "Anna", "admin": True, "user_type": "bot"}.items():
        expect(made[key] == value, f"{key} is {value}: {made}")
    expect(answer("user", "details", anna)["threepids"][0]["address"] == "anna@example.org", "the address is kept")
    expect(answer("user", "3pid", "anna@example.org") == {"user_id": anna}, "and finds the user")
    changed = answer("user", "modify", anna, "--no-admin", "--clear-threepids", "--user-type", "regular", "--lock")
    expect(not changed["admin"] and changed["threepids"] == [] and changed["locked"], f"all of it changes: {changed}")
    expect(log_in("user-anna", "a long password")[0] in (401, 403), "who is locked can't log in")
    expect(not answer("user", "modify", anna, "--unlock")["locked"], "and is unlocked")
    session = log_in("user-anna", "a long password")
    expect(session.id == anna, f"anna logs in: {session}")

    listed = answer("user", "list", "--name", "user-anna")
    expect(listed["total"] == 1 and listed["users"][0]["name"] == anna, f"anna is listed: {listed}")
    expect(answer("user", "list", "--admins", "--sort-by", "creation_ts")["users"][0]["name"] == admin.id, "the first")
    everybody = answer("user", "list", "--limit", "1")
    expect(len(everybody["users"]) == 1 and everybody["next_token"] == "1", f"a page of one: {everybody}")
    expect(anna in synadm("user", "list", "--user-id", anna, output="human"), "a person can read the list")
    expect(anna in synadm("user", "search", "ANNA"), "anna is found in any case")
    provider = answer("user", "auth-provider", "--provider", "none", "nobody")
    expect(provider["errcode"] == "M_NOT_FOUND", f"nobody came by that way: {provider}")

    room = session.room(room_alias_name="annas")
    member = answer("user", "membership", anna)
    expect(member == {"joined_rooms": [f"#annas:{SERVER}"], "total": 1}, f"anna is in one room: {member}")
    expect(answer("user", "whois", anna)["user_id"] == anna, "whois tells of anna")
    expect("M_" not in synadm("user", "password", anna, "--password", "another password", "--no-logout"), "a password")
    session.rooms()
    expect(log_in("user-anna", "another password").id == anna, "it is good")
    borrowed = answer("user", "login", anna, "--expire-days", "1")
    acting = Person("user-anna", {"user_id": anna, **borrowed})
    expect(acting.rooms() == [room], "an administrator acts as anna")

    expect(answer("user", "suspend", anna) == {f"user_{anna}_suspended": True}, "anna is suspended")
    expect(answer("user", "details", anna)["suspended"], "as the details say")
    session.ask("PUT", f"/rooms/{room}/send/m.room.message/s", {"body": "no"}, status=403)
    expect(answer("user", "suspend", anna, "--unsuspend") == {f"user_{anna}_suspended": False}, "no longer")
    expect(answer("user", "shadow-ban", anna) == {}, "anna is banned in the shadow")
    expect(answer("user", "details", anna)["shadow_banned"], "as the details say")
    expect(answer("user", "shadow-ban", anna, "--unban") == {}, "no longer")

    prune = ["user", "prune-devices", anna, "--timestamp", "--device-id", session.device()]
    expect(len(answer(*prune, "--list-only")) == 1, "one device would go")
    session.rooms()
    expect(len(answer(*prune)) == 1, "it goes")
    session.ask("GET", "/joined_rooms", status=401)

    gone = answer("user", "deactivate", anna, "--gdpr-erase")
    expect(gone == {"id_server_unbind_result": "success"}, f"anna's account ends: {gone}")
    details = answer("user", "details", anna)
    expect(details["deactivated"] and details["erased"], f"as the details say: {details}")
    expect(answer("user", "membership", anna, "--ids")["total"] == 0, "anna is in no room")
    for name in ["regex-one", "regex-two"]:
        register(name)
    expect("Would deactivate: @regex-one" in synadm("user", "deactivate-regex", "@regex-.*", "--dry-run"), "who would go")
    synadm("user", "deactivate-regex", "@regex-.*")
    expect(answer("user", "details", f"@regex-two:{SERVER}")["deactivated"], "and is gone")


def main():
    global CONFIG, SERVER
    admin = register("root", admin=True)
    SERVER = admin.id.split(":", 1)[1]
    CONFIG = os.path.join(HOME.name, "synadm.yaml")
    config = {"user": admin.id, "token": admin.token, "base_url": args.url, "format": "json", "homeserver": SERVER,
              "timeout": 60}
    with open(CONFIG, "w", encoding="utf-8") as file:
        yaml.safe_dump(config, file)
    version()
    registration_tokens()
    matrix(admin)
    notices()
    room_deletion(*rooms(admin))
    history()
    redaction()
    users(admin)
    all_verbs = {(group, verb) for group in GROUPS for verb in cli.root.commands[group].commands}
    expect(all_verbs - WITHOUT <= used, f"every verb was used, not all but {sorted(all_verbs - WITHOUT - used)}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url", help="where the server is")
    parser.add_argument("secret", help="its shared secret for registration")
    parser.add_argument("--timeout", type=float, default=120, help="seconds that a job may take")
    args = parser.parse_args()
    try:
        main()
    except Failure as failure:
        sys.exit(f"FAILED: {failure}")
    print("DONE")
