//! The library as an embedder uses it: a loop of their own, handles in other threads, every
//! callback.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use heartline::{
    Close, CloseReason, Closed, Config, ConnId, Context, Handle, Handler, SendError, Server, Stats,
    Turn,
};

const DEADLINE: Duration = Duration::from_secs(20);

#[derive(Debug, PartialEq)]
enum Call {
    Open(ConnId),
    Message(ConnId, Vec<u8>),
    Close(ConnId, CloseReason),
}

/// Reports its calls to the test.
struct Teller(Sender<Call>);

impl Handler for Teller {
    fn on_open(&mut self, cx: &mut Context<'_>, id: ConnId) {
        assert!(cx.is_open(id) && cx.peer_addr(id).is_some());
        let _ = self.0.send(Call::Open(id));
    }

    fn on_message(&mut self, _: &mut Context<'_>, id: ConnId, message: &[u8]) {
        let _ = self.0.send(Call::Message(id, message.to_vec()));
    }

    fn on_close(&mut self, cx: &mut Context<'_>, id: ConnId, closed: &Closed) {
        assert_eq!(cx.send(id, b"too late"), Err(SendError::Closed));
        let _ = self.0.send(Call::Close(id, closed.reason));
    }
}

struct Running {
    addr: SocketAddr,
    handle: Handle,
    calls: Receiver<Call>,
    thread: JoinHandle<Stats>,
}

fn running() -> Running {
    let mut server = Server::bind("127.0.0.1:0", Config::default()).expect("bound");
    let (sender, calls) = channel();
    let (addr, handle) = (server.local_addrs()[0], server.handle());
    let thread = thread::spawn(move || {
        server.run(&mut Teller(sender)).expect("the loop goes on");
        server.stats().clone()
    });
    Running {
        addr,
        handle,
        calls,
        thread,
    }
}

impl Running {
    fn connect(&self) -> (TcpStream, ConnId) {
        let stream = TcpStream::connect(self.addr).expect("accepted");
        stream
            .set_read_timeout(Some(DEADLINE))
            .expect("a timeout above zero");
        match self.next_call() {
            Call::Open(id) => (stream, id),
            call => panic!("{call:?} before the open"),
        }
    }

    fn next_call(&self) -> Call {
        self.calls.recv_timeout(DEADLINE).expect("a call")
    }
}

fn expect(stream: &mut TcpStream, expected: &[u8]) {
    let mut got = vec![0; expected.len()];
    stream.read_exact(&mut got).expect("bytes");
    assert_eq!(got, expected);
}

#[test]
fn handles_reach_connections_from_other_threads() {
    let server = running();
    let (mut one, one_id) = server.connect();
    let (mut two, two_id) = server.connect();

    let handle = server.handle.clone();
    thread::spawn(move || {
        for n in 0..100 {
            handle.send(one_id, format!("for one {n}")).expect("room");
        }
        handle.broadcast("for all").expect("room");
    })
    .join()
    .expect("no panic");
    for n in 0..100 {
        expect(&mut one, format!("for one {n}\n").as_bytes());
    }
    expect(&mut one, b"for all\n");
    expect(&mut two, b"for all\n");

    two.write_all(b"from two\n").expect("open");
    assert_eq!(
        server.next_call(),
        Call::Message(two_id, b"from two".to_vec())
    );

    server.handle.send(two_id, "the last word").expect("room");
    server
        .handle
        .close(two_id, Close::AfterFlush)
        .expect("room");
    let mut rest = String::new();
    two.read_to_string(&mut rest).expect("an orderly end");
    assert_eq!(rest, "the last word\n");
    assert_eq!(
        server.next_call(),
        Call::Close(two_id, CloseReason::Requested)
    );

    // A stale id is harmless, and what cannot be framed is dropped, not sent in pieces.
    server.handle.send(two_id, "nobody").expect("room");
    let unframeable = Err(SendError::InvalidMessage);
    assert_eq!(server.handle.send(one_id, "two\nlines"), unframeable);
    assert_eq!(server.handle.broadcast("two\nlines"), unframeable);
    server.handle.send(one_id, "one line").expect("room");
    expect(&mut one, b"one line\n");

    server.handle.shutdown(Duration::ZERO);
    assert_eq!(
        server.next_call(),
        Call::Close(one_id, CloseReason::Shutdown)
    );
    let stats = server.thread.join().expect("no panic");
    assert_eq!(
        (
            stats.opened,
            stats.closed(CloseReason::Requested),
            stats.closed(CloseReason::Shutdown)
        ),
        (2, 1, 1)
    );
    assert_eq!(
        server.handle.send(one_id, "too late"),
        Err(SendError::Closed)
    );
    server.handle.shutdown(Duration::ZERO);
}

#[test]
fn handle_reports_a_full_command_queue() {
    let server = Server::bind("127.0.0.1:0", Config::default()).expect("bound");
    let handle = server.handle();
    let mut queued = 0;
    let refused = loop {
        match handle.broadcast("x") {
            Ok(()) => queued += 1,
            Err(error) => break error,
        }
        assert!(queued < 1_000_000, "the queue has no bound");
    };
    assert_eq!(refused, SendError::Full);
}

#[test]
fn handle_runs_a_closure_on_the_loop() {
    let running = running();
    let mut peers: Vec<_> = (0..3).map(|_| running.connect()).collect();
    let (sender, result) = channel();
    let ids: Vec<ConnId> = peers.iter().map(|(_, id)| *id).collect();
    let first = ids[0];
    let task = move |cx: &mut Context<'_>| {
        let sent = ids
            .iter()
            .all(|id| cx.send(*id, b"from the closure").is_ok());
        let closing = cx.close(first, Close::AfterFlush);
        let _ = sender.send((cx.connections(), sent, closing, thread::current().id()));
    };
    running.handle.run(task).expect("there is room");
    let (connections, sent, closing, ran_on) = result.recv_timeout(DEADLINE).expect("it ran");
    assert_eq!((connections, sent, closing), (3, true, true));
    assert_eq!(ran_on, running.thread.thread().id());
    for (stream, _) in &mut peers {
        expect(stream, b"from the closure\n");
    }
    assert_eq!(
        running.next_call(),
        Call::Close(first, CloseReason::Requested)
    );
    running.handle.shutdown(Duration::ZERO);
    running.thread.join().expect("the server ends");
    assert_eq!(
        running.handle.run(|_| panic!("nothing runs any more")),
        Err(SendError::Closed)
    );
}

#[test]
fn embedder_takes_single_turns() {
    let (sender, calls) = channel();
    let mut handler = Teller(sender);
    let mut server = Server::bind("127.0.0.1:0", Config::default()).expect("bound");
    // The first turn accepts peers that wait already; after it, nothing is ever due by time alone.
    assert_eq!(
        server
            .turn(&mut handler, Some(Duration::ZERO))
            .expect("a turn"),
        Turn::Running
    );
    assert_eq!(server.next_wait(), None);

    let mut peer = TcpStream::connect(server.local_addrs()[0]).expect("queued");
    peer.write_all(b"hello\n").expect("open");
    let start = Instant::now();
    let mut seen = Vec::new();
    while seen.len() < 2 {
        assert!(start.elapsed() < DEADLINE);
        server
            .turn(&mut handler, Some(Duration::from_millis(50)))
            .expect("a turn");
        seen.extend(calls.try_iter());
    }
    assert!(
        matches!(seen[..], [Call::Open(_), Call::Message(..)]),
        "{seen:?}"
    );
    let wait = server.next_wait().expect("a ping will be due");
    assert!(
        wait > Duration::from_secs(3) && wait <= Duration::from_secs(5),
        "{wait:?}"
    );

    server.handle().shutdown(Duration::ZERO);
    while server
        .turn(&mut handler, Some(Duration::from_millis(50)))
        .expect("a turn")
        == Turn::Running
    {
        assert!(start.elapsed() < DEADLINE);
    }
    assert_eq!(
        server
            .turn(&mut handler, None)
            .expect("a turn after the last"),
        Turn::Finished
    );
    assert!(server.local_addrs().is_empty());
}

#[test]
fn handle_is_closed_after_the_server_has_ended() {
    let mut server = Server::bind("127.0.0.1:0", Config::default()).expect("bound");
    let handle = server.handle();
    handle.broadcast("before").expect("room");
    handle.shutdown(Duration::ZERO);
    server
        .run(&mut Teller(channel().0))
        .expect("the loop goes on");
    for _ in 0..5000 {
        assert_eq!(handle.broadcast("after"), Err(SendError::Closed));
    }
}

struct Panicking;

impl Handler for Panicking {
    fn on_message(&mut self, _: &mut Context<'_>, _: ConnId, _: &[u8]) {
        panic!("a handler at fault");
    }
}

#[test]
fn caught_handler_panic_poisons_the_server_and_closes_its_connections() {
    let mut server = Server::bind("127.0.0.1:0", Config::default()).expect("bound");
    let handle = server.handle();
    let mut peer = TcpStream::connect(server.local_addrs()[0]).expect("it listens");
    peer.set_read_timeout(Some(DEADLINE)).expect("a timeout");
    peer.write_all(b"hello\n").expect("room");
    let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let _ = server.run(&mut Panicking);
    }));
    assert!(caught.is_err());
    for _ in 0..2 {
        let error = server
            .turn(&mut Panicking, None)
            .expect_err("it is poisoned");
        assert!(matches!(error, heartline::Error::Poisoned), "{error}");
    }
    let ended = peer.read(&mut [0; 16]);
    assert!(matches!(ended, Ok(0) | Err(_)), "{ended:?}");
    assert_eq!(handle.broadcast("after"), Err(SendError::Closed));
}

#[test]
fn other_event_sources_are_watched_on_the_loop() {
    let mut server = Server::bind("127.0.0.1:0", Config::default()).expect("bound");
    let mut udp =
        mio::net::UdpSocket::bind("127.0.0.1:0".parse().expect("an address")).expect("a free port");
    let interest = mio::Interest::READABLE;
    let error = server
        .register_event_source(&mut udp, 1024, interest)
        .expect_err("there are 1,024 of them");
    assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput);
    server
        .register_event_source(&mut udp, 7, interest)
        .expect("registered");
    let to = udp.local_addr().expect("bound");
    let sender = std::net::UdpSocket::bind("127.0.0.1:0").expect("a free port");
    sender.send_to(b"reading", to).expect("sent");

    let (calls, _calls) = channel();
    let mut handler = Teller(calls);
    server
        .turn(&mut handler, Some(DEADLINE))
        .expect("the loop goes on");
    assert_eq!(server.ready_event_sources(), [7]);
    let mut datagram = [0; 16];
    assert_eq!(udp.recv(&mut datagram).expect("it is here"), 7);
    server
        .turn(&mut handler, Some(Duration::ZERO))
        .expect("the loop goes on");
    assert!(server.ready_event_sources().is_empty());
}
