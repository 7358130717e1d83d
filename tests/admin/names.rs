//! Names and groups at the endpoint.

use std::fs;
use std::process::Command;

use serde_json::{Value, json};

use crate::client::Client;
use crate::common::{Peer, Serve, wait_until};
use crate::{get, metric, serve};

fn log_in(server: &Serve, fields: &str) -> Peer {
    let mut peer = server.connect();
    peer.send(format!("hello version=1 {fields}\n"));
    peer.expect("welcome version=1 ");
    peer.read_line().expect("the rest of the welcome");
    peer
}

fn listed<'a>(page: &'a Value, key: &str) -> Vec<&'a str> {
    let list = page["list"].as_array().expect("a list").iter();
    list.map(|entry| entry[key].as_str().expect("text"))
        .collect()
}

#[test]
fn connection_is_found_told_and_closed_by_its_name() {
    let server = serve(&["--login", "trust"]);
    let mut client = Client::connect(&server);
    let mut device = log_in(&server, "name=dev%2F17 beat=4m");
    let _other = log_in(&server, "name=other");
    let page = get(&server, "/names?prefix=dev");
    assert_eq!(page["names"], json!(2), "in all");
    assert_eq!(listed(&page, "name"), ["dev/17"]);
    let id = page["list"][0]["ids"][0].as_str().expect("an id");
    let connection = get(&server, &format!("/connections/{id}"));
    assert_eq!(connection["name"], json!("dev/17"));
    assert_eq!(connection["bound_s"], json!(255.0));
    let found = get(&server, "/connections?search=dev");
    assert_eq!(found["matched"], json!(1));

    let sent = client.post("/names/dev%2F17/send", "blink").expect(202);
    assert_eq!(sent, json!({"queued": true}));
    device.expect("blink\n");
    client.post("/names/nobody/send", "blink").expect(404);
    client
        .post("/names/dev%2F17/send", "two\nlines")
        .expect(422);
    client.delete("/names/nobody").expect(404);
    client.delete("/names/dev%2F17").expect(202);
    device.expect_end();
    server.wait_for_closes(1);
    assert_eq!(
        get(&server, "/closed")["closed"][0]["name"],
        json!("dev/17")
    );
    assert_eq!(listed(&get(&server, "/names"), "name"), ["other"]);
}

#[test]
fn list_of_names_is_in_their_order_and_in_pages() {
    let server = serve(&["--login", "trust"]);
    let peers: Vec<Peer> = (0..25)
        .map(|n| log_in(&server, &format!("name=n{:02}", n * 7 % 25)))
        .collect();
    let mut seen = Vec::new();
    loop {
        let after = seen.last().cloned().unwrap_or_default();
        let page = get(&server, &format!("/names?limit=10&after={after}"));
        let names = listed(&page, "name");
        if names.is_empty() {
            break;
        }
        seen.extend(names.into_iter().map(str::to_owned));
    }
    let expected: Vec<String> = (0..25).map(|n| format!("n{n:02}")).collect();
    assert_eq!(seen, expected);
    drop(peers);
}

#[test]
fn group_is_listed_and_told() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("tokens");
    let file = file.to_str().expect("UTF-8");
    let tokens: Vec<String> = [["a", "fleet,red"], ["b", "fleet"], ["c", "blue"]]
        .iter()
        .map(|[name, groups]| {
            let mut command = Command::new(env!("CARGO_BIN_EXE_heartline"));
            command.args(["token", "add", "--tokens", file, name, "--groups", groups]);
            let output = command.output().expect("the binary starts");
            String::from_utf8(output.stdout).expect("text")
        })
        .collect();
    assert!(fs::metadata(file).is_ok());
    let server = serve(&["--login", "required", "--tokens", file]);
    let mut peers: Vec<Peer> = tokens
        .iter()
        .map(|token| log_in(&server, &format!("token={}", token.trim())))
        .collect();
    let page = get(&server, "/groups");
    assert_eq!(listed(&page, "group"), ["blue", "fleet", "red"]);
    assert_eq!(page["list"][1]["members"], json!(2));
    assert_eq!(listed(&get(&server, "/groups?prefix=r"), "group"), ["red"]);
    let mut client = Client::connect(&server);
    let sent = client.post("/groups/fleet/send", "blink").expect(200);
    assert_eq!(sent, json!({"receivers": 2}));
    let sent = client.post("/groups/none/send", "blink").expect(200);
    assert_eq!(sent, json!({"receivers": 0}));
    for peer in &mut peers[..2] {
        peer.expect("blink\n");
    }
    peers[2].send("hi\n");
    peers[2].expect("echo: hi\n");
    assert_eq!(metric(&server, "heartline_groups"), 3.0);
    assert_eq!(metric(&server, "heartline_group_memberships"), 4.0);
    drop(peers);
    wait_until("nobody is left", || {
        metric(&server, "heartline_names") == 0.0
    });
    assert_eq!(metric(&server, "heartline_group_memberships"), 0.0);
}

#[test]
fn event_stream_has_the_names_of_those_that_open() {
    let server = serve(&["--login", "trust"]);
    let mut stream = Client::connect(&server);
    stream.ask("GET /events", &[]);
    stream.head();
    let peers: Vec<Peer> = (0..60)
        .map(|n| log_in(&server, &format!("name=n{n}")))
        .collect();
    let (mut seen, mut more) = (Vec::new(), 0);
    for _ in 0..20 {
        let (event, data) = stream.event();
        if event == "opened" {
            let opened = data["opened"].as_array().expect("a list").iter();
            seen.extend(opened.map(|entry| entry["name"].as_str().expect("text").to_owned()));
            more += data["more"].as_u64().expect("a number");
        }
        if seen.len() as u64 + more >= 60 {
            break;
        }
    }
    assert_eq!(seen.len() as u64 + more, 60);
    assert!(seen.contains(&"n59".to_owned()), "{seen:?}");
    drop(peers);
}

#[test]
fn denied_logins_are_counted_and_listed() {
    let server = serve(&["--login", "trust"]);
    let mut peer = server.connect();
    peer.send("hello version=1\n");
    peer.expect("denied reason=name-missing\n");
    peer.expect_end();
    server.wait_for_closes(1);
    let close = &get(&server, "/closed")["closed"][0];
    assert_eq!(close["reason"], json!("login-failed"));
    assert_eq!(close["denied"], json!("name-missing"));
    let waiting = server.connect();
    wait_until("it is listed", || {
        let page = get(&server, "/connections");
        page["connections"][0]["awaits_login"] == json!(true)
    });
    drop(waiting);
    let status = get(&server, "/status");
    assert_eq!(status["logins"]["denied"]["name-missing"], json!(1));
    assert_eq!(status["logins"]["accepted"], json!(0));
    let denied = "heartline_logins_denied_total{reason=\"name-missing\"}";
    assert_eq!(metric(&server, denied), 1.0);
}
