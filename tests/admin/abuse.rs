//! Clients that mean no good, or cannot help it. The lines must not notice, and the next client
//! must be served.

use std::thread;
use std::time::{Duration, Instant};

use crate::client::Client;
use crate::common::{DEADLINE, Peer, Serve, wait_until};
use crate::{metric, serve};

fn is_served(server: &Serve, peer: &mut Peer) {
    peer.send("ping\n");
    peer.expect("pong\n");
    assert_eq!(Client::connect(server).get("/healthz").code, 200);
}

#[test]
fn hundred_admin_clients_are_served_at_once() {
    let server = serve(&[]);
    let _peers: Vec<Peer> = (0..50).map(|_| server.served()).collect();
    let mut clients: Vec<Client> = (0..100).map(|_| Client::connect(&server)).collect();
    for _ in 0..3 {
        for client in &mut clients {
            client.ask("GET /connections?limit=1000", &[]);
        }
        for client in &mut clients {
            assert_eq!(client.reply().expect(200)["matched"], 50);
        }
    }
}

#[test]
fn idle_admin_clients_make_room_for_new_ones() {
    let server = serve(&[]);
    let mut idle: Vec<Client> = (0..127).map(|_| Client::connect(&server)).collect();
    for client in &mut idle {
        assert_eq!(client.get("/healthz").code, 200);
    }
    // A client without an authorized request is closed before those that have made one.
    let mut stranger = Client::connect(&server);
    let mut late = Client::connect(&server);
    assert_eq!(late.get("/healthz").code, 200);
    stranger.expect_end();
    // And of those the one that has been idle for the longest.
    let mut later = Client::connect(&server);
    assert_eq!(later.get("/healthz").code, 200);
    idle[0].expect_end();
    for client in idle[1..].iter_mut().chain([&mut late, &mut later]) {
        assert_eq!(client.get("/healthz").code, 200);
    }
}

#[test]
fn full_admin_endpoint_answers_503_until_a_client_leaves() {
    let server = serve(&[]);
    let mut clients: Vec<Client> = (0..128).map(|_| Client::connect(&server)).collect();
    for client in &mut clients {
        client.ask("GET /events", &[]);
        assert_eq!(client.head().code, 200);
    }
    let mut late = Client::connect(&server);
    late.reply().expect(503);
    late.expect_end();
    clients.pop();
    wait_until("there is room again", || {
        let mut next = Client::connect(&server);
        next.ask("GET /healthz", &["Connection: close"]);
        next.reply().code == 200
    });
}

#[test]
fn garbage_requests_are_rejected() {
    let server = serve(&[]);
    let mut peer = server.served();
    // A TLS client, a line client, and one with another HTTP version.
    for (bytes, code) in [
        (&b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"[..], 400),
        (b"hello\r\n\r\n", 400),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
        (b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nBad Header: x\r\n\r\n", 400),
        (b"GET http://127.0.0.1/ HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", 400),
        (b"POST /broadcast HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", 501),
        (b"POST /broadcast HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello", 400),
        (b"GET / HTTP/1.1\r\nHost: \xff\r\n\r\n", 400),
    ] {
        let mut client = Client::connect(&server);
        client.send(bytes);
        let reply = client.reply();
        assert_eq!((reply.code, reply.header("Connection")), (code, Some("close")), "{:?}", String::from_utf8_lossy(bytes));
        client.expect_end();
    }
    let mut random = fastrand::Rng::with_seed(7);
    for _ in 0..100 {
        let mut client = Client::connect(&server);
        let mut bytes = vec![0; random.usize(1..3000)];
        random.fill(&mut bytes);
        // It may have been refused and left before all of it was written.
        let _ = client.wire.write_all(&bytes);
    }
    for abandoned in [
        "",
        "G",
        "GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n",
        "POST /broadcast HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 9\r\n\r\nhalf",
    ] {
        Client::connect(&server).send(abandoned);
    }
    is_served(&server, &mut peer);
    wait_until("all have gone", || {
        metric(&server, "heartline_admin_connections") == 1.0
    });
    assert_eq!(server.closes().len(), 0);
}

#[test]
fn heads_and_bodies_beyond_their_bounds_are_refused() {
    let server = serve(&[]);
    let mut peer = server.served();
    let padding = |bytes: usize| format!("X-Padding: {}", "x".repeat(bytes));
    let mut client = Client::connect(&server);
    client.ask("GET /healthz", &[&padding(7900)]);
    assert_eq!(client.reply().code, 200);
    client.ask("GET /healthz", &[&padding(8200)]);
    client.reply().expect(431);
    client.expect_end();

    let mut endless = Client::connect(&server);
    endless.send(format!("GET /{}", "x".repeat(10_000)));
    endless.reply().expect(431);

    let many: Vec<String> = (0..64).map(|n| format!("X-{n}: y")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let mut client = Client::connect(&server);
    client.ask("GET /healthz", &many);
    client.reply().expect(431);

    let mut client = Client::connect(&server);
    client.ask("POST /drain", &["Content-Length: 1025"]);
    client.reply().expect(413);
    // The response is readable although the whole body is sent.
    let mut client = Client::connect(&server);
    let body = "x".repeat(200_000);
    client.ask("POST /broadcast", &["Content-Length: 200000"]);
    client.send(body);
    client.reply().expect(413);
    is_served(&server, &mut peer);
}

/// One byte a second, in a head and in a body: ten seconds are the limit.
#[test]
fn requests_that_trickle_are_ended_in_time() {
    let server = serve(&["--heartbeat", "off"]);
    let mut peer = server.served();
    let trickle = |begin: &'static str| {
        let mut client = Client::connect(&server);
        thread::spawn(move || {
            let began = Instant::now();
            client.send(begin);
            while began.elapsed() < DEADLINE && client.wire.write_all(b"x").is_ok() {
                thread::sleep(Duration::from_secs(1));
            }
            let code = client.reply().code;
            (code, began.elapsed())
        })
    };
    let trickling = [
        trickle("GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Slow: "),
        trickle("POST /broadcast HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 60000\r\n\r\n"),
    ];
    is_served(&server, &mut peer);
    for trickling in trickling {
        let (code, took) = trickling.join().expect("a reply");
        assert_eq!(code, 408);
        assert!(
            took >= Duration::from_secs(10) && took < DEADLINE,
            "{took:?}"
        );
    }
    is_served(&server, &mut peer);
}

/// Clients that request large listings and read none of them.
#[test]
fn admin_client_that_does_not_read_is_dropped() {
    let server = serve(&["--heartbeat", "off"]);
    let mut peers: Vec<Peer> = (0..1000).map(|_| server.served()).collect();
    let mut client = Client::connect(&server);
    let large = client.get("/connections?limit=1000");
    assert_eq!(
        large.expect(200)["connections"]
            .as_array()
            .expect("a list")
            .len(),
        1000
    );
    assert!(large.body.len() > 150_000, "{}", large.body.len());

    let before = server.status("VmRSS");
    let mut hoarder = Client::connect(&server);
    let request = format!(
        "GET /connections?limit=1000 HTTP/1.1\r\nHost: {}\r\n\r\n",
        hoarder.host()
    );
    hoarder.send(request.repeat(200));
    // Others are served all the while.
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(2) {
        is_served(&server, &mut peers[0]);
        assert_eq!(
            client.get("/connections?limit=10").expect(200)["matched"],
            1000
        );
    }
    assert!(
        server.status("VmRSS") < before + 8 * 1024,
        "it holds one answer at a time"
    );
    wait_until("it is dropped", || {
        metric(&server, "heartline_admin_connections") == 2.0
    });
    assert!(
        hoarder.drain() < large.body.len() * 200,
        "it was not given all of it"
    );
    is_served(&server, &mut peers[999]);
}

/// A client that reads slowly gets all of it.
#[test]
fn slow_admin_client_gets_its_whole_response() {
    let server = serve(&[]);
    let _peers: Vec<Peer> = (0..1000).map(|_| server.served()).collect();
    let mut client = Client::connect(&server);
    let request = format!(
        "GET /connections?limit=1000 HTTP/1.1\r\nHost: {}\r\n\r\n",
        client.host()
    );
    client.send(request.repeat(30));
    for _ in 0..30 {
        thread::sleep(Duration::from_millis(50));
        assert_eq!(
            client.reply().expect(200)["connections"]
                .as_array()
                .expect("a list")
                .len(),
            1000
        );
    }
}
