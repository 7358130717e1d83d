//! The library's client against servers that follow a script, over real sockets on loopback.

#[path = "common/pings.rs"]
mod pings;
#[path = "common/scripted.rs"]
mod scripted;

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use heartline::client::{
    Backoff, Client, ClientConfig, ClientContext, ClientHandler, ClientState, Event, Outcome,
};
use heartline::{CloseReason, Error, Framing, Heartbeat, SendError};
use pings::without_pings;
use proptest::prelude::*;
use scripted::{DEADLINE, accept, first_article, second_article, server};

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn config() -> ClientConfig {
    ClientConfig {
        heartbeat: None,
        backoff: Backoff::fixed(ms(50)),
        ..ClientConfig::default()
    }
}

fn heartbeat(interval: Duration, max_missed: u8) -> Option<Heartbeat> {
    Some(Heartbeat {
        interval,
        retry: None,
        max_missed,
        send_pings: true,
        ..Heartbeat::default()
    })
}

fn read_line(reader: &mut impl BufRead) -> String {
    let mut line = String::new();
    reader.read_line(&mut line).expect("the client sends lines");
    line.trim_end().to_owned()
}

/// Records all events and does what the test prescribes for each.
#[derive(Default)]
struct Notes {
    messages: Vec<String>,
    events: Vec<String>,
    /// How long the line that was lost last had been silent.
    silence: Duration,
    finish_after: Option<usize>,
}

impl ClientHandler for Notes {
    fn on_message(&mut self, client: &mut ClientContext<'_>, message: &[u8]) {
        self.messages
            .push(String::from_utf8_lossy(message).into_owned());
        if Some(self.messages.len()) == self.finish_after {
            client.finish();
        }
    }

    fn on_event(&mut self, _: &mut ClientContext<'_>, event: &Event) {
        if let Event::Disconnected { silence, .. } = event {
            self.silence = *silence;
        }
        self.events.push(match event {
            Event::Dialing(dial) => format!("dialing {dial}"),
            Event::DialFailed(_) => "dial failed".into(),
            Event::Connected { epoch, .. } => format!("connected {epoch}"),
            Event::Silent(_) => "silent".into(),
            Event::RoundTrip(_) => "round trip".into(),
            Event::Disconnected { epoch, reason, .. } => format!("disconnected {epoch} {reason}"),
            Event::Reconnecting { next, .. } => format!("reconnecting {next}"),
            Event::Done(outcome) => format!("done {outcome}"),
            other => panic!("a new event needs a name here: {other:?}"),
        });
    }
}

impl Notes {
    fn count(&self, event: &str) -> usize {
        self.events
            .iter()
            .filter(|seen| seen.starts_with(event))
            .count()
    }
}

/// Turns until `done`.
fn turn_until(
    client: &mut Client,
    notes: &mut Notes,
    what: &str,
    mut done: impl FnMut(&Client, &Notes) -> bool,
) {
    let start = Instant::now();
    while !done(client, notes) {
        assert!(
            start.elapsed() < DEADLINE,
            "waited in vain until {what}: {:?}",
            notes.events
        );
        client.turn(notes, Some(ms(20))).expect("the poll works");
    }
}

fn outcome(client: &mut Client, notes: &mut Notes) -> Outcome {
    turn_until(client, notes, "the client is done", |client, _| {
        matches!(client.state(), ClientState::Done(_))
    });
    client.run(notes).expect("the poll works")
}

#[test]
fn client_talks_to_the_server_of_the_first_article() {
    let (addr, server) = server(first_article);
    let mut client = Client::connect(
        addr.to_string(),
        ClientConfig {
            heartbeat: heartbeat(ms(100), 50),
            ..config()
        },
    )
    .expect("connects");
    let mut notes = Notes::default();
    client.send(b"hello").expect("room");
    // An answer to a ping that is no pong is a message, and a sign of life.
    turn_until(
        &mut client,
        &mut notes,
        "some pings are echoed",
        |_, notes| notes.messages.len() >= 4,
    );
    client.finish();
    assert_eq!(client.send(b"too late"), Err(SendError::Closed));
    assert_eq!(outcome(&mut client, &mut notes), Outcome::Finished);
    assert_eq!(notes.messages[..2], ["echo: hello", "echo: ping"]);
    assert_eq!(
        (
            notes.count("disconnected"),
            client.epoch(),
            client.rtt().count
        ),
        (1, 1, 0)
    );
    server.join().expect("the server is content");
}

#[test]
fn client_measures_round_trips_with_a_raw_server() {
    let (addr, server) = server(second_article);
    let config = ClientConfig {
        framing: Framing::Raw,
        heartbeat: heartbeat(ms(100), 50),
        ..config()
    };
    let mut client = Client::connect(addr.to_string(), config).expect("connects");
    let mut notes = Notes::default();
    client.send(b"hello").expect("room");
    turn_until(&mut client, &mut notes, "some pongs arrive", |client, _| {
        client.rtt().count >= 3
    });
    client.finish();
    assert_eq!(outcome(&mut client, &mut notes), Outcome::Finished);
    // On a busy machine the server may find a ping glued to something, which it takes for a
    // message: that is what raw framing is.
    assert!(
        notes.messages[0].starts_with("HELLO"),
        "{:?}",
        notes.messages
    );
    let rtt = client.rtt();
    assert!(
        rtt.min <= rtt.smoothed && rtt.smoothed <= rtt.max && rtt.max < DEADLINE,
        "{rtt:?}"
    );
    assert_eq!(notes.count("round trip") as u64, rtt.count);
    server.join().expect("the server is content");
}

#[test]
fn client_answers_pings_and_does_not_deliver_them() {
    let (addr, server) = server(|listener| {
        let mut stream = accept(&listener);
        stream.write_all(b"pi").expect("the client reads");
        thread::sleep(ms(20));
        stream
            .write_all(b"ng\r\nhello\nping\npong\n")
            .expect("the client reads");
        let mut reader = BufReader::new(stream);
        [read_line(&mut reader), read_line(&mut reader)]
    });
    let mut client = Client::connect(addr.to_string(), config()).expect("connects");
    let mut notes = Notes {
        finish_after: Some(1),
        ..Notes::default()
    };
    assert_eq!(outcome(&mut client, &mut notes), Outcome::Finished);
    assert_eq!(notes.messages, ["hello"]);
    assert_eq!(
        server.join().expect("the server is content"),
        ["pong", "pong"]
    );
}

#[test]
fn messages_sent_while_down_go_out_in_order_after_the_reconnect() {
    let (addr, server) = server(|listener| {
        let mut first = BufReader::new(accept(&listener));
        first
            .get_mut()
            .write_all(b"welcome\n")
            .expect("the client reads");
        assert_eq!(read_line(&mut first), "before");
        drop(first);
        let mut second = accept(&listener);
        second.write_all(b"again\n").expect("the client reads");
        BufReader::new(second)
            .lines()
            .map(|line| line.expect("text"))
            .collect::<Vec<_>>()
    });
    let mut client = Client::connect(addr.to_string(), config()).expect("connects");
    let mut notes = Notes::default();
    client.send(b"before").expect("room");
    turn_until(&mut client, &mut notes, "the line is lost", |client, _| {
        client.state() == ClientState::Waiting && client.epoch() == 1
    });
    let expected: Vec<String> = (0..1000).map(|n| format!("message {n}")).collect();
    for message in &expected {
        client.send(message.as_bytes()).expect("room");
    }
    client.finish();
    assert_eq!(outcome(&mut client, &mut notes), Outcome::Finished);
    assert_eq!(server.join().expect("the server is content"), expected);
    assert_eq!(notes.messages, ["welcome", "again"]);
    assert!(
        notes
            .events
            .contains(&"reconnecting try 1 of 5".to_string()),
        "{:?}",
        notes.events
    );
    assert_eq!(
        notes.events.last().map(String::as_str),
        Some("done finished")
    );
}

#[test]
fn partially_sent_message_is_resent_whole() {
    const LEN: usize = 16 << 20;
    let (addr, server) = server(|listener| {
        let mut first = accept(&listener);
        first.write_all(b"x\n").expect("the client reads");
        // Part of the message arrives, the rest finds no room anywhere.
        first.read_exact(&mut [0; 100]).expect("the client writes");
        thread::sleep(ms(200));
        drop(first);
        let mut all = Vec::new();
        accept(&listener)
            .read_to_end(&mut all)
            .expect("the client finishes");
        all
    });
    let mut client = Client::connect(
        addr.to_string(),
        ClientConfig {
            max_queue: 2 * LEN,
            ..config()
        },
    )
    .expect("connects");
    client.send(&vec![b'a'; LEN]).expect("room");
    client.send(b"tail").expect("room");
    client.finish();
    assert_eq!(
        outcome(&mut client, &mut Notes::default()),
        Outcome::Finished
    );
    let all = server.join().expect("the server is content");
    assert_eq!(all.len(), LEN + 1 + 5);
    assert!(all[..LEN].iter().all(|byte| *byte == b'a') && all.ends_with(b"\ntail\n"));
}

/// Bytes belong to the connection that they came over, whatever they say.
#[test]
fn partial_pong_is_dropped_at_a_reconnect() {
    let (addr, server) = server(|listener| {
        let mut first = BufReader::new(accept(&listener));
        first.get_mut().write_all(b"po").expect("the client reads");
        assert_eq!(read_line(&mut first), "ping");
        drop(first);
        let mut second = accept(&listener);
        second
            .write_all(b"ng\npong\nend\n")
            .expect("the client reads");
        second
    });
    // The first ping of the second connection is far away, so that its pong answers none.
    let mut client = Client::connect(
        addr.to_string(),
        ClientConfig {
            heartbeat: heartbeat(ms(1000), 50),
            ..config()
        },
    )
    .expect("connects");
    let mut notes = Notes::default();
    turn_until(&mut client, &mut notes, "the end", |_, notes| {
        notes.messages.last().is_some_and(|last| last == "end")
    });
    assert_eq!(
        (notes.messages, client.rtt().count),
        (vec!["ng".to_string(), "end".to_string()], 0)
    );
    server.join().expect("the server is content");
}

/// Raw framing may hide an answer in a message; then the next one is not the answer to the older
/// ping.
#[test]
fn pong_without_an_outstanding_ping_is_ignored() {
    let (go_on, gone_on) = mpsc::channel();
    let (addr, server) = server(move |listener| {
        let mut stream = accept(&listener);
        stream.read_exact(&mut [0; 4]).expect("the client asks");
        stream.write_all(b"xpong").expect("the client reads");
        gone_on
            .recv_timeout(DEADLINE)
            .expect("the client has read that");
        stream.write_all(b"pong").expect("the client reads");
    });
    let config = ClientConfig {
        framing: Framing::Raw,
        heartbeat: heartbeat(ms(1000), 50),
        ..config()
    };
    let mut client = Client::connect(addr.to_string(), config).expect("connects");
    let mut notes = Notes::default();
    turn_until(&mut client, &mut notes, "the first answer", |_, notes| {
        notes.messages == ["xpong"]
    });
    go_on.send(()).expect("the server waits");
    turn_until(&mut client, &mut notes, "the end", |_, notes| {
        notes.count("disconnected 1 peer-closed") == 1
    });
    assert_eq!((notes.messages.len(), client.rtt().count), (1, 0));
    server.join().expect("the server is content");
}

#[test]
fn client_gives_up_on_a_server_that_closes_at_once() {
    let (addr, server) = server(|listener| (0..3).for_each(|_| drop(accept(&listener))));
    let mut client = Client::connect(
        addr.to_string(),
        ClientConfig {
            tries: Some(3),
            ..config()
        },
    )
    .expect("connects");
    let mut notes = Notes::default();
    assert_eq!(
        outcome(&mut client, &mut notes),
        Outcome::GaveUp { tries: 3 }
    );
    let expected = [
        "dialing try 1 of 3",
        "connected 1",
        "disconnected 1 peer-closed",
        "reconnecting try 2 of 3",
        "dialing try 2 of 3",
        "connected 2",
        "disconnected 2 peer-closed",
        "reconnecting try 3 of 3",
        "dialing try 3 of 3",
        "connected 3",
        "disconnected 3 peer-closed",
        "done gave up after 3 tries",
    ];
    assert_eq!(notes.events, expected);
    assert_eq!(
        client.turn(&mut notes, None).expect("no poll"),
        ClientState::Done(Outcome::GaveUp { tries: 3 })
    );
    assert_eq!(client.send(b"late"), Err(SendError::Closed));
    server.join().expect("the server is content");
}

#[test]
fn refused_dials_and_names_that_do_not_resolve_use_tries_up() {
    let port = TcpListener::bind("127.0.0.1:0")
        .expect("a port")
        .local_addr()
        .expect("bound")
        .port();
    for addr in [format!("127.0.0.1:{port}"), "no\0such\0name:1".to_string()] {
        let mut client = Client::connect(
            addr,
            ClientConfig {
                tries: Some(2),
                ..config()
            },
        )
        .expect("connects");
        let mut notes = Notes::default();
        assert_eq!(
            outcome(&mut client, &mut notes),
            Outcome::GaveUp { tries: 2 }
        );
        assert_eq!(
            (notes.count("dial failed"), notes.count("connected")),
            (2, 0)
        );
    }
}

#[test]
fn one_attempt_tries_every_address_of_a_name() {
    // It listens on one family only; `localhost` may resolve to the other first.
    let (addr, server) = server(first_article);
    let mut client =
        Client::connect(format!("localhost:{}", addr.port()), config()).expect("connects");
    client.send(b"hello").expect("room");
    let mut notes = Notes {
        finish_after: Some(1),
        ..Notes::default()
    };
    assert_eq!(outcome(&mut client, &mut notes), Outcome::Finished);
    assert_eq!(notes.count("dialing"), 1);
    server.join().expect("the server is content");
}

#[cfg(target_os = "linux")]
#[test]
fn dial_into_a_full_backlog_times_out() {
    let listener =
        socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
    listener
        .bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into())
        .expect("a port");
    listener.listen(0).expect("listens");
    let addr = listener
        .local_addr()
        .expect("bound")
        .as_socket()
        .expect("an IP address");
    // No process accepts: once the backlog is full, the kernel lets the handshake hang.
    let _fill: Vec<_> = (0..4)
        .map_while(|_| TcpStream::connect_timeout(&addr, ms(200)).ok())
        .collect();
    let config = ClientConfig {
        tries: Some(1),
        dial_timeout: ms(200),
        ..config()
    };
    let mut client = Client::connect(addr.to_string(), config).expect("connects");
    let (mut notes, start) = (Notes::default(), Instant::now());
    assert_eq!(
        outcome(&mut client, &mut notes),
        Outcome::GaveUp { tries: 1 }
    );
    assert!(start.elapsed() >= ms(200));
    assert_eq!(
        notes.events,
        [
            "dialing try 1 of 1",
            "dial failed",
            "done gave up after 1 try"
        ]
    );
}

/// The server takes everything the kernel takes for it, and never answers.
#[test]
fn client_redials_a_server_that_never_answers() {
    let (interval, missed) = (ms(150), 2);
    let (addr, server) = server(|listener| {
        let deaf = accept(&listener);
        let again = accept(&listener);
        (deaf, again)
    });
    let mut client = Client::connect(
        addr.to_string(),
        ClientConfig {
            heartbeat: heartbeat(interval, missed),
            ..config()
        },
    )
    .expect("connects");
    let mut notes = Notes::default();
    turn_until(&mut client, &mut notes, "it is given up", |_, notes| {
        notes.count("disconnected 1 heartbeat-timeout") == 1
    });
    assert!(
        notes.silence > interval * (u32::from(missed) + 1),
        "{:?}",
        notes.silence
    );
    assert_eq!(notes.count("silent"), 1);
    turn_until(
        &mut client,
        &mut notes,
        "it is dialled again",
        |client, _| client.epoch() == 2,
    );
    let (mut deaf, _again) = server.join().expect("the server is content");
    let mut pings = String::new();
    deaf.read_to_string(&mut pings).expect("an orderly end");
    assert_eq!(pings, "ping\nping\n");
}

/// Any byte of the server is a sign of life, but the queue must not wait for ever.
#[test]
fn message_is_repeated_after_a_server_never_read_it() {
    const LEN: usize = 16 << 20;
    let (addr, server) = server(|listener| {
        let mut deaf = accept(&listener);
        let beats = thread::spawn(move || {
            while deaf.write_all(b"ping\n").is_ok() {
                thread::sleep(ms(50));
            }
        });
        let mut again = accept(&listener);
        let mut message = Vec::new();
        again
            .read_to_end(&mut message)
            .expect("the message, from its beginning");
        beats.join().expect("no panic");
        without_pings(message)
    });
    let config = ClientConfig {
        heartbeat: heartbeat(ms(1000), 3),
        write_timeout: Some(ms(400)),
        max_queue: 2 * LEN,
        ..config()
    };
    let mut client = Client::connect(addr.to_string(), config).expect("connects");
    client.send(&vec![b'a'; LEN]).expect("room");
    let mut notes = Notes::default();
    turn_until(&mut client, &mut notes, "it is given up", |_, notes| {
        notes.count("disconnected 1 slow-reader") == 1
    });
    client.finish();
    assert_eq!(outcome(&mut client, &mut notes), Outcome::Finished);
    let message = server.join().expect("the server is content");
    assert!(message.len() == LEN + 1 && message[..LEN].iter().all(|byte| *byte == b'a'));
}

/// Reads what the client sends a little at a time, for twice the client's timeout of 800 ms, and
/// then to the end; answers the pings among it if `answers` is set. Returns the bytes that are not
/// pings.
fn read_slowly(mut slow: TcpStream, answers: bool) -> usize {
    let (mut buffer, mut all) = (vec![0; 64 * 1024], Vec::new());
    for _ in 0..40 {
        let n = slow.read(&mut buffer).unwrap_or(0);
        let pings = buffer[..n].windows(6).filter(|six| six == b"\nping\n");
        for _ in 0..pings.count() {
            if answers {
                slow.write_all(b"pong\n").expect("the client reads");
            }
        }
        all.extend_from_slice(&buffer[..n]);
        thread::sleep(ms(40));
    }
    let _ = slow.read_to_end(&mut all);
    without_pings(all).len()
}

fn send_much(answers: bool) -> (Outcome, Notes, usize) {
    const LEN: usize = 16 * 1024;
    const MESSAGES: usize = 1000;
    let (addr, server) = server(move |listener| read_slowly(accept(&listener), answers));
    let config = ClientConfig {
        heartbeat: heartbeat(ms(200), 3),
        max_queue: 2 * LEN * MESSAGES,
        tries: Some(1),
        ..config()
    };
    let mut client = Client::connect(addr.to_string(), config).expect("connects");
    for _ in 0..MESSAGES {
        client.send(&vec![b'a'; LEN]).expect("room");
    }
    client.finish();
    let mut notes = Notes::default();
    let outcome = outcome(&mut client, &mut notes);
    let received = server.join().expect("the server is content");
    (outcome, notes, MESSAGES * (LEN + 1) - received)
}

#[test]
fn slow_server_that_answers_pings_is_alive() {
    let (outcome, notes, missing) = send_much(true);
    assert_eq!(
        (outcome, missing),
        (Outcome::Finished, 0),
        "{:?}",
        notes.events
    );
}

#[test]
fn acknowledgements_alone_do_not_keep_a_server_alive() {
    let (outcome, notes, missing) = send_much(false);
    assert_eq!(notes.count("disconnected 1 heartbeat-timeout"), 1);
    assert!(outcome != Outcome::Finished && missing > 0, "{outcome:?}");
}

#[test]
fn reset_after_sending_everything_is_a_failure() {
    let (addr, server) = server(|listener| {
        let stream = accept(&listener);
        let mut reader = BufReader::new(stream);
        assert_eq!(read_line(&mut reader), "hello");
        socket2::SockRef::from(reader.get_ref())
            .set_linger(Some(Duration::ZERO))
            .expect("an option");
    });
    let mut client = Client::connect(addr.to_string(), config()).expect("connects");
    client.send(b"hello").expect("room");
    client.finish();
    assert_eq!(
        outcome(&mut client, &mut Notes::default()),
        Outcome::ConnectionLost(CloseReason::PeerReset)
    );
    server.join().expect("the server is content");
}

#[test]
fn half_closed_client_receives_until_the_server_closes() {
    let (addr, server) = server(|listener| {
        let mut stream = accept(&listener);
        let mut all = String::new();
        stream
            .read_to_string(&mut all)
            .expect("the client finishes");
        for n in 0..5 {
            thread::sleep(ms(30));
            writeln!(stream, "late {n}").expect("the client still listens");
        }
        all
    });
    let mut client = Client::connect(
        addr.to_string(),
        ClientConfig {
            heartbeat: heartbeat(ms(100), 50),
            ..config()
        },
    )
    .expect("connects");
    client.send(b"question").expect("room");
    client.finish();
    let mut notes = Notes::default();
    assert_eq!(outcome(&mut client, &mut notes), Outcome::Finished);
    assert_eq!(
        notes.messages,
        ["late 0", "late 1", "late 2", "late 3", "late 4"]
    );
    assert_eq!(server.join().expect("the server is content"), "question\n");
}

#[test]
fn client_leaves_a_server_that_ignores_its_half_close() {
    let (release, released) = mpsc::channel::<()>();
    let (addr, server) = server(move |listener| {
        let _open = accept(&listener);
        let _ = released.recv_timeout(DEADLINE);
    });
    let mut client = Client::connect(
        addr.to_string(),
        ClientConfig {
            heartbeat: heartbeat(ms(50), 1),
            ..config()
        },
    )
    .expect("connects");
    client.finish();
    assert_eq!(
        outcome(&mut client, &mut Notes::default()),
        Outcome::Finished
    );
    release.send(()).expect("the server waits");
    server.join().expect("the server is content");
}

#[test]
fn frame_too_large_closes_the_connection() {
    let (addr, server) = server(|listener| {
        accept(&listener)
            .write_all(&[b'a'; 100])
            .expect("the client reads");
        accept(&listener)
            .write_all(b"short\n")
            .expect("the client reads");
    });
    let mut client = Client::connect(
        addr.to_string(),
        ClientConfig {
            max_message: 50,
            ..config()
        },
    )
    .expect("connects");
    let mut notes = Notes {
        finish_after: Some(1),
        ..Notes::default()
    };
    assert_eq!(outcome(&mut client, &mut notes), Outcome::Finished);
    assert_eq!(notes.count("disconnected 1 frame-too-large"), 1);
    server.join().expect("the server is content");
}

#[test]
fn full_client_queue_rejects_new_messages() {
    let port = TcpListener::bind("127.0.0.1:0")
        .expect("a port")
        .local_addr()
        .expect("bound")
        .port();
    let mut client = Client::connect(
        format!("127.0.0.1:{port}"),
        ClientConfig {
            max_queue: 256,
            ..config()
        },
    )
    .expect("connects");
    assert_eq!(client.send(b"a\nb"), Err(SendError::InvalidMessage));
    let taken = (0..1000)
        .take_while(|_| client.send(b"seven b").is_ok())
        .count();
    assert_eq!((taken, client.send(b"seven b")), (16, Err(SendError::Full)));
    let handle = client.handle();
    let taken = (0..1000)
        .take_while(|_| handle.send(b"seven b").is_ok())
        .count();
    assert_eq!((taken, handle.send(b"seven b")), (6, Err(SendError::Full)));
    assert_eq!(handle.send_blocking(&[b'x'; 256]), Err(SendError::Full));
    client.stop();
    assert_eq!(
        client.run(&mut Notes::default()).expect("the poll works"),
        Outcome::Stopped
    );
    assert_eq!(handle.send(b"seven b"), Err(SendError::Closed));
}

#[test]
fn messages_from_two_full_queues_arrive_in_order() {
    let (addr, server) = server(|listener| {
        let stream = accept(&listener);
        BufReader::new(stream)
            .lines()
            .map(|line| line.expect("text"))
            .collect::<Vec<_>>()
    });
    let mut client = Client::connect(
        addr.to_string(),
        ClientConfig {
            max_queue: 256,
            ..config()
        },
    )
    .expect("connects");
    let handle = client.handle();
    let fill = |name: &str, send: &mut dyn FnMut(&[u8]) -> Result<(), SendError>| {
        (0..)
            .map(|n| format!("{name} {n}"))
            .take_while(|message| send(message.as_bytes()).is_ok())
            .collect::<Vec<_>>()
    };
    // Nothing is dialled before the first turn, in which the queue has no room for the handle's
    // messages.
    let expected = [
        fill("own", &mut |message| client.send(message)),
        fill("handle", &mut |message| handle.send(message)),
    ]
    .concat();
    handle.finish();
    assert_eq!(
        outcome(&mut client, &mut Notes::default()),
        Outcome::Finished
    );
    assert_eq!(server.join().expect("the server is content"), expected);
}

#[test]
fn handle_sends_from_another_thread_and_waits_for_room() {
    let (addr, server) = server(|listener| {
        let stream = accept(&listener);
        BufReader::new(stream)
            .lines()
            .map(|line| line.expect("text"))
            .collect::<Vec<_>>()
    });
    let mut client = Client::connect(
        addr.to_string(),
        ClientConfig {
            max_queue: 1024,
            ..config()
        },
    )
    .expect("connects");
    let handle = client.handle();
    let sender = thread::spawn(move || {
        for n in 0..20_000 {
            handle
                .send_blocking(format!("message {n}").as_bytes())
                .expect("the client lives");
        }
        handle.finish();
        assert_eq!(handle.send(b"too late"), Err(SendError::Closed));
    });
    assert_eq!(
        client.run(&mut Notes::default()).expect("the poll works"),
        Outcome::Finished
    );
    sender.join().expect("the sender is content");
    let received = server.join().expect("the server is content");
    assert_eq!(received.len(), 20_000);
    assert!(
        received
            .iter()
            .enumerate()
            .all(|(n, line)| *line == format!("message {n}"))
    );
}

#[test]
fn blocked_handle_returns_when_the_client_ends() {
    let port = TcpListener::bind("127.0.0.1:0")
        .expect("a port")
        .local_addr()
        .expect("bound")
        .port();
    let config = ClientConfig {
        max_queue: 256,
        backoff: Backoff::fixed(DEADLINE),
        tries: None,
        ..config()
    };
    let mut client = Client::connect(format!("127.0.0.1:{port}"), config).expect("connects");
    let handle = client.handle();
    let sender = thread::spawn(move || while handle.send_blocking(b"0123456789").is_ok() {});
    let stopper = client.handle();
    let stop = thread::spawn(move || {
        thread::sleep(ms(100));
        // However full the queue is, this arrives.
        stopper.stop();
    });
    assert_eq!(
        client.run(&mut Notes::default()).expect("the poll works"),
        Outcome::Stopped
    );
    sender.join().expect("the sender was told");
    stop.join().expect("stopped");
}

#[test]
fn client_runs_in_an_embedders_loop() {
    let (addr, server) = server(first_article);
    let mut client = Client::connect(
        addr.to_string(),
        ClientConfig {
            heartbeat: heartbeat(ms(100), 50),
            ..config()
        },
    )
    .expect("connects");
    let mut poll = mio::Poll::new().expect("a poll");
    let mut events = mio::Events::with_capacity(8);
    let fd = client.as_raw_fd();
    poll.registry()
        .register(
            &mut mio::unix::SourceFd(&fd),
            mio::Token(0),
            mio::Interest::READABLE,
        )
        .expect("registers");
    client.send(b"hello").expect("room");
    let (mut notes, mut turns, start) = (
        Notes {
            finish_after: Some(4),
            ..Notes::default()
        },
        0,
        Instant::now(),
    );
    while client
        .turn(&mut notes, Some(Duration::ZERO))
        .expect("the poll works")
        != ClientState::Done(Outcome::Finished)
    {
        assert!(start.elapsed() < DEADLINE, "{:?}", notes.events);
        poll.poll(&mut events, client.timeout())
            .expect("the poll works");
        turns += 1;
    }
    // The echo of the message and three beats: a few turns each, never a spin.
    assert!(turns < 100, "{turns} turns");
    assert_eq!(client.epoch(), 1);
    server.join().expect("the server is content");
}

#[test]
fn client_errors_name_the_address_or_setting() {
    let field = |result: Result<Client, Error>| match result {
        Err(Error::Config(error)) => error.field,
        _ => panic!("a configuration error was due"),
    };
    assert_eq!(field(Client::connect("localhost", config())), "addr");
    assert_eq!(
        field(Client::connect(
            "localhost:1",
            ClientConfig {
                tries: Some(0),
                ..config()
            }
        )),
        "tries"
    );
}

#[test]
fn client_reports_close_after_immediate_shutdown() {
    // FIN right behind the last bytes: edge-triggered readiness must not lose it.
    let (addr, server) = server(|listener| {
        for _ in 0..20 {
            let mut stream = accept(&listener);
            stream.write_all(b"bye\n").expect("the client reads");
            stream.shutdown(Shutdown::Write).expect("it is open");
            assert_eq!(
                stream
                    .read_to_end(&mut Vec::new())
                    .expect("the client goes"),
                0
            );
        }
    });
    let config = ClientConfig {
        backoff: Backoff::fixed(ms(1)),
        tries: Some(1),
        ..config()
    };
    let mut client = Client::connect(addr.to_string(), config).expect("connects");
    let mut notes = Notes::default();
    turn_until(
        &mut client,
        &mut notes,
        "twenty lines were lost",
        |_, notes| notes.count("disconnected") == 20,
    );
    assert_eq!(notes.messages.len(), 20);
    server.join().expect("the server is content");
}

/// What happens next on a line that follows no script.
#[derive(Clone, Copy, Debug)]
enum Step {
    /// A message of this length, through the client or its handle.
    Send {
        by_handle: bool,
        len: usize,
    },
    Turn,
    /// The server reads so much at most.
    Read(usize),
    /// The server pings, and the pong must not split a message.
    Ask,
    /// The server resets the connection, with unread bytes.
    Reset,
}

fn step() -> impl Strategy<Value = Step> {
    // Several of the long ones are more than the kernel takes, and some more than the queues do.
    let len = prop_oneof![0..200usize, 0..(2usize << 20)];
    prop_oneof![
        6 => (any::<bool>(), len).prop_map(|(by_handle, len)| Step::Send { by_handle, len }),
        6 => Just(Step::Turn),
        2 => (0..(1usize << 20)).prop_map(Step::Read),
        1 => Just(Step::Ask),
        1 => Just(Step::Reset),
    ]
}

/// A server on the client's own thread, and what each of its connections received.
struct Chance {
    listener: TcpListener,
    line: Option<TcpStream>,
    wires: Vec<Vec<u8>>,
}

impl Chance {
    fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port of our own");
        listener.set_nonblocking(true).expect("an option");
        Chance {
            listener,
            line: None,
            wires: Vec::new(),
        }
    }

    /// The line, if the client has dialled one.
    fn line(&mut self) -> Option<&mut TcpStream> {
        if self.line.is_none()
            && let Ok((stream, _)) = self.listener.accept()
        {
            stream.set_nonblocking(true).expect("an option");
            self.line = Some(stream);
            self.wires.push(Vec::new());
        }
        self.line.as_mut()
    }

    /// Reads what is available, `most` bytes at most, and returns whether the client still writes.
    fn read(&mut self, most: usize) -> bool {
        let Some(line) = self.line() else { return true };
        let mut found = Vec::new();
        let end = line.take(most as u64).read_to_end(&mut found);
        self.wires
            .last_mut()
            .expect("one for each line")
            .extend(&found);
        // Without an error, less than `most` is the end of stream.
        end.is_err() || found.len() == most
    }

    fn say(&mut self, words: &str) {
        if let Some(line) = self.line() {
            line.write_all(words.as_bytes()).expect("there is room");
        }
    }

    fn reset(&mut self) {
        if let Some(line) = self.line() {
            socket2::SockRef::from(&*line)
                .set_linger(Some(Duration::ZERO))
                .expect("an option");
        }
        self.line = None;
    }
}

/// Removes what one connection received from the messages that are `left`, those of the client and
/// those of its handle: in order, none split, none twice. Those before its first were lost with an
/// earlier connection.
fn take_line(wire: &[u8], left: &mut [VecDeque<String>; 2]) {
    let mut begun = [false; 2];
    let whole = wire
        .iter()
        .rposition(|byte| *byte == b'\n')
        .map_or(0, |end| end + 1);
    for message in wire[..whole]
        .split(|byte| *byte == b'\n')
        .filter(|message| ![b"".as_slice(), b"pong"].contains(message))
    {
        let sender = usize::from(message.starts_with(b"handle"));
        if !std::mem::replace(&mut begun[sender], true) {
            let lost = left[sender]
                .iter()
                .take_while(|next| next.as_bytes() != message)
                .count();
            left[sender].drain(..lost);
        }
        let expected = left[sender]
            .pop_front()
            .is_some_and(|next| next.as_bytes() == message);
        assert!(
            expected,
            "{:?} is torn, out of order or here twice",
            String::from_utf8_lossy(&message[..message.len().min(20)])
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, max_shrink_time: 30_000, ..ProptestConfig::default() })]

    /// For any sequence of sends, reads, partial writes and resets: over all connections no message
    /// comes twice, split or out of order, and none that was refused; and a connection without a
    /// reset delivers everything.
    #[test]
    fn no_message_is_repeated_or_split_over_reconnects(
        steps in prop::collection::vec(step(), 0..120),
    ) {
        let mut server = Chance::new();
        let addr = server.listener.local_addr().expect("bound").to_string();
        let config = ClientConfig { max_queue: 3 << 20, backoff: Backoff::fixed(ms(1)), tries: None, ..config() };
        let mut client = Client::connect(addr, config).expect("connects");
        let (handle, mut notes) = (client.handle(), Notes::default());
        let mut accepted: [VecDeque<String>; 2] = Default::default();
        let mut send = |client: &mut Client, by_handle: bool, len: usize| {
            let queued = &mut accepted[usize::from(by_handle)];
            let message = format!("{} {} {}", if by_handle { "handle" } else { "own" }, queued.len(), "x".repeat(len));
            let taken = if by_handle { handle.send(message.as_bytes()) } else { client.send(message.as_bytes()) };
            assert!(matches!(taken, Ok(()) | Err(SendError::Full)), "{taken:?}");
            if taken.is_ok() {
                queued.push_back(message);
            }
            taken.is_ok()
        };
        for step in steps {
            match step {
                Step::Send { by_handle, len } => drop(send(&mut client, by_handle, len)),
                Step::Turn => drop(client.turn(&mut notes, Some(ms(1))).expect("the poll works")),
                Step::Read(most) => drop(server.read(most)),
                Step::Ask => server.say("ping\n"),
                Step::Reset => server.reset(),
            }
        }
        // What is sent from here on is sent on a connection that lasts.
        turn_until(&mut client, &mut notes, "there is a line", |_, _| server.line().is_some());
        server.say("lasting\n");
        turn_until(&mut client, &mut notes, "it is on that line", |_, notes| notes.messages == ["lasting"]);
        for by_handle in [false, true] {
            while !send(&mut client, by_handle, 0) {
                server.read(usize::MAX);
                client.turn(&mut notes, Some(ms(1))).expect("the poll works");
            }
        }
        handle.finish();
        turn_until(&mut client, &mut notes, "it is done", |client, _| {
            if !server.read(usize::MAX) {
                server.line = None;
            }
            matches!(client.state(), ClientState::Done(_))
        });
        prop_assert_eq!(client.state(), ClientState::Done(Outcome::Finished));
        server.wires.iter().for_each(|wire| take_line(wire, &mut accepted));
        prop_assert_eq!(accepted.map(|left| left.len()), [0, 0]);
    }
}
