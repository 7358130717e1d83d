//! Each request and its effect.

use std::io::Write;
use std::process::{Command, Stdio};

use serde_json::json;

use crate::client::Client;
use crate::common::{Peer, wait_until};
use crate::{get, ids, metric, serve};

#[test]
fn healthz_and_page_are_served() {
    let server = serve(&[]);
    let mut client = Client::connect(&server);
    let health = client.get("/healthz");
    assert_eq!((health.code, health.body.as_str()), (200, "ok\n"));
    assert!(
        health
            .header("Content-Type")
            .is_some_and(|kind| kind.starts_with("text/plain")),
        "{health:?}"
    );
    let page = client.get("/");
    assert_eq!(page.code, 200);
    assert!(
        page.header("Content-Type")
            .is_some_and(|kind| kind.starts_with("text/html")),
        "{page:?}"
    );
    assert!(page.body.contains("<html") && page.header("Content-Security-Policy").is_some());
    for reply in [health, page] {
        assert_eq!(reply.header("Cache-Control"), Some("no-store"));
        assert_eq!(reply.header("X-Content-Type-Options"), Some("nosniff"));
    }
}

#[test]
fn status_endpoint_has_identity_and_counters() {
    let server = serve(&[
        "--heartbeat",
        "2s",
        "--max-connections",
        "10",
        "--app",
        "sink",
    ]);
    let mut peer = server.served();
    peer.send("hello\n");
    wait_until("the message has come", || {
        get(&server, "/status")["messages"]["received"] == 1
    });
    let status = get(&server, "/status");
    assert_eq!(status["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(status["pid"], server.pid().as_raw_nonzero().get());
    assert_eq!(
        (&status["app"], &status["framing"]),
        (&json!("sink"), &json!("lines"))
    );
    assert_eq!(status["listening"], json!([server.addr().to_string()]));
    assert_eq!(
        (
            &status["heartbeat_s"],
            &status["retry_s"],
            &status["missed"],
            &status["bound_s"]
        ),
        (&json!(2.0), &json!(2.0), &json!(3), &json!(8.0))
    );
    assert_eq!(
        status["connections"],
        json!({"open": 1, "max": 10, "opened": 1})
    );
    assert_eq!(status["closed"]["peer-closed"], 0);
    assert_eq!(status["refused"]["full"], 0);
    assert_eq!(status["bytes"]["in"], 11);
    assert_eq!(
        status["heartbeats"],
        json!({"pings_sent": 0, "pongs_received": 0, "pings_received": 1})
    );
    assert_eq!(
        (&status["draining"], &status["max_buffered_bytes"]),
        (&json!(false), &json!(268_435_456))
    );
    for histogram in ["round_trip", "overshoot", "lag", "turn"] {
        let buckets = status[histogram]["buckets"].as_array().expect("buckets");
        assert_eq!(buckets.first().expect("one at least")[0], json!(0.00001));
        assert!(
            buckets.is_sorted_by_key(|bucket| bucket[1].as_u64().expect("a count")),
            "{histogram} is cumulated"
        );
    }
    assert!(status["turn"]["count"].as_u64() > Some(0));
    let started = status["started"].as_str().expect("a time");
    assert!(started.len() == 24 && started.ends_with('Z'), "{started}");
    let process = &status["process"];
    assert_eq!(
        process["resident_bytes"]
            .as_u64()
            .map(|bytes| bytes > 1 << 20),
        Some(true),
        "{process}"
    );
    let mut client = Client::connect(&server);
    wait_until(
        "they are as many as there are, this client included",
        || client.get("/status").expect(200)["process"]["descriptors"] == server.descriptors(),
    );
    drop(peer);
    wait_until("it is counted", || {
        get(&server, "/status")["closed"]["peer-closed"] == 1
    });
}

#[test]
fn bounds_that_are_off_are_null() {
    let server = serve(&[
        "--heartbeat",
        "off",
        "--max-memory",
        "off",
        "--framing",
        "length",
    ]);
    let status = get(&server, "/status");
    for bound in [
        "heartbeat_s",
        "retry_s",
        "missed",
        "bound_s",
        "max_buffered_bytes",
    ] {
        assert_eq!(status[bound], json!(null), "{bound}");
    }
    assert_eq!(status["framing"], "length");
}

#[test]
fn connections_are_sorted() {
    let server = serve(&["--heartbeat", "off"]);
    let mut peers: Vec<Peer> = (0..5).map(|_| server.served()).collect();
    // The third sends most, and each after it less.
    for (index, messages) in [(2, 3), (3, 2), (4, 1)] {
        for _ in 0..messages {
            peers[index].send("hello\n");
            peers[index].expect("echo: hello\n");
        }
    }
    let listed = get(&server, "/connections?sort=bytes&limit=2");
    let keys =
        ["open", "matched", "offset", "limit", "sort", "order"].map(|key| listed[key].clone());
    assert_eq!(
        keys,
        [
            json!(5),
            json!(5),
            json!(0),
            json!(2),
            json!("bytes"),
            json!("desc")
        ]
    );
    let connections = listed["connections"].as_array().expect("a list");
    assert_eq!(connections.len(), 2);
    let first = &connections[0];
    assert_eq!(
        first["address"],
        peers[2].stream.local_addr().expect("connected").to_string()
    );
    assert_eq!(
        (&first["bytes_in"], &first["bytes_out"], &first["closing"]),
        (&json!(23), &json!(41), &json!(false))
    );
    for figure in ["age_s", "silence_s"] {
        assert!(first[figure].is_f64(), "{first}");
    }

    let ids = ids(&server);
    assert_eq!(ids.len(), 5);
    let page = get(
        &server,
        "/connections?sort=bytes&order=asc&offset=1&limit=3",
    );
    let page: Vec<&str> = page["connections"]
        .as_array()
        .expect("a list")
        .iter()
        .filter_map(|connection| connection["id"].as_str())
        .collect();
    assert_eq!(page, [&ids[1], &ids[4], &ids[3]]);
    wait_until("the one that was heard last is the least silent", || {
        peers[2].send("hello\n");
        peers[2].expect("echo: hello\n");
        get(&server, "/connections?sort=silence&order=asc&limit=1")["connections"][0]["id"]
            == *ids[2]
    });
    let address = peers[3].stream.local_addr().expect("connected");
    let narrowed = get(
        &server,
        &format!("/connections?search=127.0.0.1%3A{}", address.port()),
    );
    assert_eq!(
        (&narrowed["matched"], &narrowed["connections"][0]["id"]),
        (&json!(1), &json!(ids[3]))
    );
    assert_eq!(
        get(&server, &format!("/connections/{}", ids[3]))["address"],
        address.to_string()
    );
}

#[test]
fn answered_ping_sets_the_round_trip() {
    let server = serve(&["--heartbeat", "200ms"]);
    let mut peer = server.served();
    let path = format!("/connections/{}", ids(&server)[0]);
    assert_eq!(get(&server, &path)["round_trip_ms"], json!(null));
    peer.expect("ping\n");
    peer.send("pong\n");
    wait_until("the answer is measured", || {
        // Another may be out by now.
        let shown = get(&server, &path);
        shown["round_trip_ms"].is_u64() || shown["pings_unanswered"] == 1
    });
    wait_until("it is in the histogram", || {
        metric(&server, "heartline_heartbeat_round_trip_seconds_count") >= 1.0
    });
}

#[test]
fn stale_id_is_404_though_its_slot_is_reused() {
    let server = serve(&[]);
    let mut client = Client::connect(&server);
    let first = server.served();
    let stale = format!("/connections/{}", ids(&server)[0]);
    drop(first);
    server.wait_for_closes(1);
    let mut next = server.served();
    assert!(ids(&server)[0].starts_with("0."), "the slot is used again");
    client.get(&stale).expect(404);
    client
        .post(&format!("{stale}/send"), "for somebody else")
        .expect(404);
    client.delete(&stale).expect(404);
    client.delete(&format!("{stale}?now=true")).expect(404);
    let next_id = &ids(&server)[0];
    for id in [
        "7.7",
        "0",
        "x",
        "0.2.1",
        "-1.2",
        "0.99999999999",
        &format!("+{next_id}"),
        &format!("0{next_id}"),
    ] {
        client.get(&format!("/connections/{id}")).expect(404);
    }
    next.send("mine\n");
    next.expect("echo: mine\n");
}

#[test]
fn id_of_an_earlier_process_is_404() {
    let before = serve(&[]);
    let _here = before.served();
    let id = ids(&before)[0].clone();
    let after = serve(&[]);
    let _here = after.served();
    assert!(
        id.starts_with("0.") && ids(&after)[0].starts_with("0."),
        "both have the first slot"
    );
    Client::connect(&after)
        .delete(&format!("/connections/{id}"))
        .expect(404);
}

#[test]
fn send_reaches_one_and_broadcast_reaches_all() {
    let server = serve(&["--app", "sink"]);
    let mut peers: Vec<Peer> = (0..5).map(|_| server.served()).collect();
    let mut client = Client::connect(&server);
    let second = format!("/connections/{}/send", ids(&server)[1]);
    assert_eq!(
        client.post(&second, "you alone").expect(202),
        json!({"queued": true})
    );
    assert_eq!(
        client.post("/broadcast", "all of you").expect(200),
        json!({"receivers": 5})
    );
    // An empty message is a message.
    client.ask(&format!("POST {second}"), &[]);
    client.reply().expect(202);
    for (index, peer) in peers.iter_mut().enumerate() {
        peer.expect(if index == 1 {
            "you alone\nall of you\n\n"
        } else {
            "all of you\n"
        });
    }
    wait_until("they are logged", || {
        server
            .log()
            .contains("admin method=POST path=/broadcast status=200 peer=127.0.0.1:")
    });
    assert!(
        !server.log().contains("method=GET"),
        "what changes nothing is not worth a line"
    );
}

#[test]
fn rejected_message_has_a_specific_code() {
    let server = serve(&["--max-message", "1KiB"]);
    let mut peer = server.served();
    let mut client = Client::connect(&server);
    for target in [
        "/broadcast",
        &format!("/connections/{}/send", ids(&server)[0]),
    ] {
        client.post(target, "two\nlines").expect(422);
        assert_eq!(client.post(target, &"x".repeat(1024)).code / 100, 2);
        let mut large = Client::connect(&server);
        large.post(target, &"x".repeat(1025)).expect(413);
        large.expect_end();
        // Rejected by its announced length, before a byte of it has come.
        let mut larger = Client::connect(&server);
        larger.ask(
            &format!("POST {target}"),
            &["Content-Length: 99999999999999"],
        );
        larger.reply().expect(413);
    }
    peer.expect(format!("{0}\n{0}\n", "x".repeat(1024)));
}

#[test]
fn send_to_a_full_queue_is_409() {
    for on_slow in ["close", "drop"] {
        let server = serve(&["--max-outbox", "256KiB", "--on-slow", on_slow]);
        let peer = server.served();
        let mut client = Client::connect(&server);
        let message = "x".repeat(60_000);
        let id = &ids(&server)[0];
        let path = format!("/connections/{id}");
        // The kernel takes a few megabytes before the queue grows.
        let refused = (0..1000)
            .map(|_| client.post(&format!("{path}/send"), &message))
            .find(|reply| reply.code != 202);
        refused.expect("it fills up").expect(409);
        match on_slow {
            "close" => {
                let closes = server.wait_for_closes(1);
                assert!(closes[0].contains("reason=slow-reader"), "{closes:?}");
                client.get(&path).expect(404);
            }
            _ => {
                let shown = client.get(&path).expect(200);
                assert!(shown["queued"].as_u64() > Some(100_000), "{shown}");
                assert!(metric(&server, "heartline_messages_dropped_total") >= 1.0);
                assert!(metric(&server, "heartline_buffered_bytes") > 100_000.0);
                let listed = get(&server, "/connections?sort=queued&limit=1");
                assert_eq!(listed["connections"][0]["id"], **id);
            }
        }
        drop(peer);
    }
}

#[test]
fn kick_closes_a_connection_as_requested() {
    let server = serve(&[]);
    let (mut soft, mut hard, mut other) = (server.served(), server.served(), server.served());
    let mut client = Client::connect(&server);
    let ids = ids(&server);
    let path = |index: usize| format!("/connections/{}", ids[index]);
    client
        .post(&format!("{}/send", path(0)), "goodbye")
        .expect(202);
    assert_eq!(
        client.delete(&path(0)).expect(202),
        json!({"closing": true})
    );
    soft.expect("goodbye\n");
    soft.expect_end();
    client.delete(&format!("{}?now=true", path(1))).expect(202);
    assert_eq!(hard.read_line(), None);
    let closes = server.wait_for_closes(2);
    assert!(
        closes
            .iter()
            .all(|close| close.contains("reason=requested")),
        "{closes:?}"
    );
    other.send("ping\n");
    other.expect("pong\n");

    let closed = get(&server, "/closed");
    let closed = closed["closed"].as_array().expect("a list");
    assert_eq!(
        closed.iter().map(|close| &close["id"]).collect::<Vec<_>>(),
        [&ids[1], &ids[0]],
        "the newest first"
    );
    let first = &closed[1];
    assert_eq!(
        (&first["reason"], &first["origin"]),
        (&json!("requested"), &json!("local"))
    );
    assert_eq!(
        (&first["bytes_in"], &first["bytes_out"], &first["unsent"]),
        (&json!(5), &json!(13), &json!(0))
    );
    assert_eq!(
        first["address"],
        soft.stream.local_addr().expect("connected").to_string()
    );
    assert!(
        first["at"].as_str().is_some_and(|at| at.len() == 24),
        "{first}"
    );
    assert_eq!(
        get(&server, "/closed?limit=1")["closed"]
            .as_array()
            .expect("a list")
            .len(),
        1
    );
}

#[test]
fn wrong_methods_paths_and_queries_have_different_codes() {
    let server = serve(&[]);
    let mut client = Client::connect(&server);
    for (method, target, allowed) in [
        ("POST", "/status", "GET, HEAD"),
        ("PUT", "/", "GET, HEAD"),
        ("OPTIONS", "/metrics", "GET, HEAD"),
        ("GET", "/broadcast", "POST"),
        ("GET", "/drain", "POST"),
        ("GET", "/connections/0.1/send", "POST"),
        ("POST", "/connections/0.1", "GET, HEAD, DELETE"),
    ] {
        client.ask(&format!("{method} {target}"), &[]);
        let reply = client.reply();
        reply.expect(405);
        assert_eq!(reply.header("Allow"), Some(allowed), "{method} {target}");
    }
    client.get("/favicon.ico").expect(404);
    for target in [
        "/connections?sort=name",
        "/connections?limit=1001",
        "/connections?limit=%2B5",
        "/connections?offset=99001&limit=1000",
        "/connections?x=1",
        "/closed?limit=x",
    ] {
        client.get(target).expect(400);
    }
    client.post("/drain?grace=soon", "").expect(400);
    for (method, target) in [
        ("POST", "/broadcast?address=192.0.2.1"),
        ("POST", "/connections/0.1/send?now=true"),
        ("DELETE", "/connections/0.1?grace=1s"),
    ] {
        client.ask(&format!("{method} {target}"), &[]);
        client.reply().expect(400);
    }
    assert_eq!(
        client.get("/healthz").code,
        200,
        "and nothing has come of it"
    );
}

#[test]
fn head_is_get_without_the_body() {
    let server = serve(&[]);
    let mut client = Client::connect(&server);
    for target in [
        "/",
        "/healthz",
        "/metrics",
        "/status",
        "/connections",
        "/closed",
    ] {
        client.ask(&format!("HEAD {target}"), &[]);
        let head = client.head();
        assert_eq!(head.code, 200, "{target}");
        assert!(
            head.header("Content-Length")
                .is_some_and(|length| length != "0"),
            "{target}: {head:?}"
        );
    }
    client.ask("HEAD /connections/5.5", &[]);
    assert_eq!(client.head().code, 404);
    client.ask("HEAD /events", &[]);
    assert_eq!(client.head().code, 200);
}

#[test]
fn admin_connections_are_kept_alive_and_pipelined() {
    let server = serve(&[]);
    let mut client = Client::connect(&server);
    let request = format!("GET /healthz HTTP/1.1\r\nHost: {}\r\n\r\n", client.host());
    client.send(request.repeat(200));
    for _ in 0..200 {
        assert_eq!(client.reply().body, "ok\n");
    }
    // Cut anywhere, it is the same request.
    for byte in request.as_bytes() {
        client.send([*byte]);
    }
    assert_eq!(client.reply().body, "ok\n");
    client.ask("GET /healthz", &["Connection: close"]);
    let last = client.reply();
    assert_eq!(
        (last.body.as_str(), last.header("Connection")),
        ("ok\n", Some("close"))
    );
    client.expect_end();

    let mut old = Client::connect(&server);
    old.send("GET /healthz HTTP/1.0\r\n\r\n");
    assert_eq!(old.reply().body, "ok\n");
    old.expect_end();
    let mut old = Client::connect(&server);
    for _ in 0..2 {
        old.send("GET /healthz HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
        assert_eq!(old.reply().header("Connection"), Some("keep-alive"));
    }
    // As `nc -N` does: it half-closes after its request.
    old.send("GET /healthz HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
    old.wire.finish();
    assert_eq!(old.reply().body, "ok\n");
    old.expect_end();
}

#[test]
fn expect_continue_is_answered() {
    let server = serve(&["--app", "sink"]);
    let mut peer = server.served();
    let mut client = Client::connect(&server);
    client.ask(
        "POST /broadcast",
        &["Content-Length: 5", "Expect: 100-continue"],
    );
    assert_eq!(client.head().code, 100);
    client.send("hello");
    client.reply().expect(200);
    peer.expect("hello\n");
}

#[test]
fn metrics_are_the_figures_of_the_status() {
    let server = serve(&[]);
    let mut client = Client::connect(&server);
    let _peers: Vec<Peer> = (0..3).map(|_| server.served()).collect();
    let reply = client.get("/metrics");
    assert_eq!(
        reply.header("Content-Type"),
        Some("text/plain; version=0.0.4; charset=utf-8")
    );
    for sample in [
        "heartline_connections 3",
        "heartline_connections_opened_total 3",
        "heartline_received_bytes_total 15",
        "heartline_sent_bytes_total 15",
        "heartline_pings_received_total 3",
        "heartline_connections_closed_total{reason=\"heartbeat-timeout\"} 0",
        "heartline_connections_refused_total{cause=\"full\"} 0",
        "heartline_loop_lag_seconds_bucket{le=\"+Inf\"} 0",
        "heartline_heartbeat_bound_seconds 20",
        "heartline_admin_connections 1",
        "heartline_draining 0",
    ] {
        assert!(
            reply.body.lines().any(|line| line == sample),
            "no {sample} in {}",
            reply.body
        );
    }
    client.get("/nowhere").expect(404);
    assert_eq!(
        metric(&server, "heartline_admin_requests_total{code=\"404\"}"),
        1.0
    );
}

/// Needs promtool, which Debian's `prometheus` has: `cargo test --test admin -- --ignored`.
#[test]
#[ignore = "needs promtool"]
fn metrics_pass_promtool() {
    let server = serve(&["--heartbeat", "200ms"]);
    let mut peer = server.served();
    peer.expect("ping\n");
    peer.send("pong\n");
    drop(peer);
    server.wait_for_closes(1);
    let metrics = Client::connect(&server).get("/metrics").body;
    let mut promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool");
    promtool
        .stdin
        .take()
        .expect("piped")
        .write_all(metrics.as_bytes())
        .expect("it reads");
    let output = promtool.wait_with_output().expect("it ends");
    let said = String::from_utf8_lossy(&output.stdout).into_owned()
        + &String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success() && said.is_empty(),
        "{said}\n{metrics}"
    );
}

#[test]
fn event_stream_has_status_and_closes() {
    let server = serve(&[]);
    let first = server.served();
    let id = ids(&server)[0].clone();
    drop(first);
    server.wait_for_closes(1);
    let mut stream = Client::connect(&server);
    stream.ask("GET /events", &[]);
    let head = stream.head();
    assert_eq!(
        (head.code, head.header("Content-Type")),
        (200, Some("text/event-stream"))
    );
    // Or nginx would keep the events back until its buffer is full.
    assert_eq!(head.header("X-Accel-Buffering"), Some("no"));
    let (name, status) = stream.event();
    assert_eq!(
        (name.as_str(), &status["connections"]["open"]),
        ("status", &json!(0))
    );
    assert_eq!(
        status["closed"]["peer-closed"], 1,
        "what has closed before is in the sums alone"
    );

    let peers: Vec<Peer> = (0..60).map(|_| server.served()).collect();
    drop(peers);
    server.wait_for_closes(61);
    // They may have fallen into two seconds.
    let (mut told, mut more) = (Vec::new(), 0);
    for _ in 0..20 {
        let (name, data) = stream.event();
        if name == "closed" {
            let closed = data["closed"].as_array().expect("a list");
            assert!(closed.len() <= 50);
            told.extend(
                closed
                    .iter()
                    .map(|close| close["id"].as_str().expect("an id").to_owned()),
            );
            more += data["more"].as_u64().expect("a number");
        } else {
            assert!(name == "status" || name == "opened", "{name}");
        }
        if told.len() as u64 + more >= 60 {
            break;
        }
    }
    assert_eq!(
        told.len() as u64 + more,
        60,
        "each once, the first one not at all"
    );
    assert!(!told.contains(&id));
    let (name, status) = stream.event();
    assert_eq!(
        (name.as_str(), &status["closed"]["peer-closed"]),
        ("status", &json!(61))
    );
}
