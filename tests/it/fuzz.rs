//! No input makes a 500 or a panic: nonsense of many kinds for every endpoint, as nobody, as a user and as an
//! administrator. `EVERFOLD_TEST_SEED` repeats a run, `EVERFOLD_TEST_ROUNDS` makes it longer.

use std::fmt::Write;

use http::Method;
use rand::{Rng, SeedableRng, rngs::StdRng};
use serde_json::{Value, json};

use crate::common::{
    Client, Reply, TestServer,
    endpoints::{Endpoint, endpoints},
};

/// Keys that some request or other gives a meaning.
const KEYS: &[&str] = &[
    "auth",
    "avatar_url",
    "content",
    "creation_content",
    "device_id",
    "device_keys",
    "devices",
    "displayname",
    "dir",
    "event_fields",
    "event_format",
    "filter",
    "from",
    "full_state",
    "identifier",
    "initial_state",
    "invite",
    "invite_3pid",
    "is_direct",
    "limit",
    "m.read",
    "master_key",
    "membership",
    "messages",
    "name",
    "new_password",
    "one_time_keys",
    "org.example",
    "password",
    "power_level_content_override",
    "preset",
    "reason",
    "redacts",
    "room",
    "room_alias_name",
    "room_id",
    "room_version",
    "servers",
    "set_presence",
    "since",
    "timeline",
    "timeout",
    "to",
    "topic",
    "ts",
    "type",
    "types",
    "typing",
    "user",
    "user_id",
    "username",
    "users",
    "visibility",
    "via",
];

/// Path segments; `~` stands for a room that is there.
const SEGMENTS: &[&str] = &[
    "~",
    "~",
    "@fuzz:test.example",
    "@fuzz:test.example",
    "@nobody:test.example",
    "@a:other.example",
    "!none:test.example",
    "$event",
    "%23alias:test.example",
    "m.room.message",
    "m.room.name",
    "m.room.power_levels",
    "global",
    "content",
    "override",
    "1",
    "-1",
    "18446744073709551616",
    "%00",
    "%ff",
    "%2F",
    "..",
    "%F0%9F%92%A9",
    "@",
    "!",
    "$",
    "#",
    "@:",
    "!:x",
    "m.read",
    "displayname",
    "enabled",
    "actions",
    "txn1",
    "%20",
    "%22%7B",
];

struct Fuzz {
    random: StdRng,
    room: String,
}

impl Fuzz {
    fn pick<'a>(&mut self, from: &[&'a str]) -> &'a str {
        from[self.below(from.len())]
    }

    fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.random.next_u32()).unwrap() % end
    }

    /// A value that is right for few keys.
    fn value(&mut self, depth: usize) -> Value {
        match self.below(if depth == 0 { 12 } else { 16 }) {
            0 => Value::Null,
            1 => json!(true),
            2 => json!(-1),
            3 => json!(1.5),
            4 => json!(u64::MAX),
            5 => json!(i64::MIN),
            6 => json!(1e300),
            7 => json!(""),
            8 => json!("\0\u{1f4a9}\u{202e}"),
            9 => json!("x".repeat(300)),
            10 => json!(self.pick(SEGMENTS)),
            11 => json!(self.room),
            12 => Value::Array((0..self.below(4)).map(|_| self.value(depth - 1)).collect()),
            _ => self.object(depth - 1),
        }
    }

    fn object(&mut self, depth: usize) -> Value {
        let keys: Vec<_> = (0..self.below(8)).map(|_| self.pick(KEYS).to_owned()).collect();
        Value::Object(keys.into_iter().map(|key| (key, self.value(depth))).collect())
    }

    fn body(&mut self) -> Vec<u8> {
        match self.below(16) {
            0 => Vec::new(),
            1 => b"{".to_vec(),
            2 => b"[]".to_vec(),
            3 => b"null".to_vec(),
            4 => b"\"text\"".to_vec(),
            5 => vec![b'['; 50_000],
            6 => format!("{}{}", "{\"content\":".repeat(99), "}".repeat(99)).into_bytes(),
            7 => format!("{}1{}", "{\"content\":".repeat(90), "}".repeat(90)).into_bytes(),
            8 => vec![0xff, 0xfe, 0x00],
            9 => format!("{{\"{}\": 1{}}}", self.pick(KEYS), "0".repeat(400)).into_bytes(),
            10 => {
                format!("{{\"type\": 1, \"type\": \"m.login.password\", \"{}\": {{}}}}", self.pick(KEYS)).into_bytes()
            }
            11 => json!({ "content": "x".repeat(70_000), "name": "x".repeat(70_000), "body": "x" })
                .to_string()
                .into_bytes(),
            _ => self.object(4).to_string().into_bytes(),
        }
    }

    fn path(&mut self, template: &str) -> String {
        let mut path = String::new();
        for segment in template.split('/').skip(1) {
            let segment = if segment.starts_with('{') { self.pick(SEGMENTS) } else { segment };
            write!(path, "/{}", if segment == "~" { self.room.as_str() } else { segment }).unwrap();
        }
        for n in 0..self.below(4) {
            let value = self.pick(&[
                "",
                "-1",
                "0",
                "1",
                "99999999999999999999",
                "%00",
                "%ff",
                "b",
                "f",
                "{}",
                "{",
                "[]",
                "true",
                "s1_x_1",
            ]);
            write!(path, "{}{}={value}", if n == 0 { '?' } else { '&' }, self.pick(KEYS)).unwrap();
        }
        path
    }
}

/// Whether what was answered is an answer.
fn judge(endpoint: &Endpoint, path: &str, body: &[u8], reply: &Reply) {
    let told = || {
        let body = String::from_utf8_lossy(&body[..body.len().min(500)]).into_owned();
        format!("{}: {} {path}\n{body}\n-> {} {}", endpoint.file, endpoint.method, reply.status, reply.text)
    };
    assert!(!reply.status.is_server_error(), "{}", told());
    if reply.status.is_client_error() {
        assert!(reply["error"].is_string() || reply["flows"].is_array(), "no reason: {}", told());
    }
}

async fn member(server: &TestServer, name: &str) -> Client {
    let password = format!("password of {name}");
    server.client().logged_in(&server.client().log_in(name, &password, json!({})).await.ok())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_input_gives_a_500_or_a_panic() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let (seed, rounds) = (number("EVERFOLD_TEST_SEED").unwrap_or(1), number("EVERFOLD_TEST_ROUNDS").unwrap_or(40));
    println!("EVERFOLD_TEST_SEED={seed}");
    let server = TestServer::with(&[("limits.sync_timeout_seconds", "0"), ("registration.guests", "on")]).await;
    let (mut user, mut admin) = (server.user("fuzz").await, server.admin("root").await);
    let made = user.post("/createRoom", json!({})).await.ok();
    let room = made["room_id"].as_str().unwrap().to_owned();
    let mut fuzz = Fuzz { random: StdRng::seed_from_u64(seed), room };
    let endpoints = endpoints();
    assert!(endpoints.len() > 40, "the heads of the handlers' files have another shape than this test reads");
    for endpoint in &endpoints {
        let method: Method = endpoint.method.parse().unwrap();
        for _ in 0..rounds {
            let (path, body) = (fuzz.path(&endpoint.path), fuzz.body());
            let who = match fuzz.below(8) {
                0 => &server.client(),
                1 => &admin,
                _ => &user,
            };
            // What clients refuse to send at all is no input.
            let Ok(request) = who.request(method.clone(), &path).body(body.clone()).build() else { continue };
            judge(endpoint, &path, &body, &Reply::sent(request).await);
        }
        if user.get("/account/whoami").await.status != 200 {
            user = member(&server, "fuzz").await;
        }
        if admin.get("/account/whoami").await.status != 200 {
            admin = member(&server, "root").await;
        }
    }
    server.finish().await;
}
