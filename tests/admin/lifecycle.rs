//! Drain, descriptors, and the cost of an unused endpoint.

use std::process::Command;
use std::thread;
use std::time::Duration;

use serde_json::json;

use crate::client::Client;
use crate::common::{Peer, Serve, wait_until};
use crate::{get, serve};

#[test]
fn endpoint_answers_during_a_drain() {
    let mut server = serve(&["--drain", "60s"]);
    let mut peer = server.served();
    let mut stream = Client::connect(&server);
    stream.ask("GET /events", &[]);
    assert_eq!(stream.head().code, 200);
    let mut client = Client::connect(&server);
    assert_eq!(
        client.post("/drain", "").expect(202),
        json!({"draining": true, "grace_s": 60.0})
    );
    wait_until("it is logged as a signal is", || {
        server
            .log()
            .contains("shutdown connections=1 grace_ms=60000")
    });
    let health = client.get("/healthz");
    assert_eq!((health.code, health.body.as_str()), (503, "draining\n"));
    let status = get(&server, "/status");
    assert_eq!(
        (&status["draining"], &status["listening"]),
        (&json!(true), &json!([]))
    );

    // A later end than the one that is set changes nothing; an earlier one does.
    let left = client.post("/drain?grace=2m", "").expect(202)["grace_s"]
        .as_f64()
        .expect("a figure");
    assert!((1.0..=60.0).contains(&left), "{left}");
    wait_until("what is left is logged", || {
        server.log().matches("] shutdown ").count() == 2
    });
    assert!(
        !server.log().contains("grace_ms=120000"),
        "{}",
        server.log()
    );
    assert_eq!(
        client.post("/drain?grace=0s", "").expect(202),
        json!({"draining": true, "grace_s": 0.0})
    );
    peer.expect_end();
    assert_eq!(server.wait().code(), Some(0));
    assert!(server.closes()[0].contains("reason=shutdown"));
    stream.drain();
}

#[test]
fn drain_answers_after_the_last_connection() {
    let mut server = serve(&[]);
    let mut client = Client::connect(&server);
    client.post("/drain?grace=10ms", "").expect(202);
    assert_eq!(server.wait().code(), Some(0));
}

#[test]
fn admin_endpoint_without_clients_makes_no_wake_up() {
    let server = serve(&["--heartbeat", "60s"]);
    let wake_ups = || server.status("voluntary_ctxt_switches");
    let settle = || {
        let mut last = wake_ups();
        wait_until("the server sleeps", || {
            thread::sleep(Duration::from_millis(300));
            std::mem::replace(&mut last, wake_ups()) == last
        });
        last
    };
    let quiet = |when: &str| {
        let asleep = settle();
        thread::sleep(Duration::from_millis(1500));
        assert_eq!(wake_ups(), asleep, "woken up {when}");
    };
    quiet("before anybody came");
    let mut client = Client::connect(&server);
    client.get("/connections").expect(200);
    let mut stream = Client::connect(&server);
    stream.ask("GET /events", &[]);
    assert_eq!(
        (stream.head().code, stream.event().0.as_str()),
        (200, "status")
    );
    drop(stream);
    quiet("by a client that says nothing");
    drop(client);
    quiet("after all had gone");
}

#[test]
fn endpoint_reserves_descriptors() {
    let mut command = Command::new("sh");
    command.args([
        "-c",
        "ulimit -n 512 && exec \"$0\" \"$@\"",
        env!("CARGO_BIN_EXE_heartline"),
    ]);
    let server = Serve::spawn(command, &["127.0.0.1:0"], &["--admin", "127.0.0.1:0"]);
    let most = get(&server, "/status")["connections"]["max"]
        .as_u64()
        .expect("a number") as usize;
    assert!(most > 256, "{most}");
    let mut peers: Vec<Peer> = (0..most).map(|_| server.served()).collect();
    server.connect().expect_end();
    // An eighth of them is the endpoint's.
    let mut clients: Vec<Client> = (0..64).map(|_| Client::connect(&server)).collect();
    for client in &mut clients {
        assert_eq!(client.get("/healthz").code, 200);
    }
    let status = clients[0].get("/status").expect(200);
    assert_eq!(status["refused"]["full"], 1);
    assert_eq!(status["refused"]["no-descriptors"], 0);
    let mut one_more = Client::connect(&server);
    assert_eq!(one_more.get("/healthz").code, 200);
    clients[1].expect_end();
    assert!(!server.log().contains("accept-error"), "{}", server.log());
    for peer in &mut peers {
        peer.send("ping\n");
        peer.expect("pong\n");
    }
}
