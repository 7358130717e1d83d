//! The latency of a quiet peer beside others that are not quiet.

use std::io::{Read, Write};
use std::iter;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::slice;
use std::thread;
use std::time::{Duration, Instant};

use socket2::{Domain, Socket, Type};

use crate::background::Background;
use crate::child::{Child, Failure, check_interrupt};
use crate::harness::{self, Found, Urgency};
use crate::peers::{Mode, Ready, Server, Wire};
use crate::scenario::{Bench, Measured, Metric, metric};
use crate::stats::Unit;

pub const ID: &str = "fairness";

pub const METRICS: &[Metric] = &[
    metric("alone", "p99 of 50 quiet peers", Unit::Microseconds, false),
    metric(
        "rate-limited",
        "the same beside one that floods",
        Unit::Times,
        false,
    ),
    metric(
        "empty-lines",
        "the same beside one that floods empty lines",
        Unit::Times,
        false,
    ),
    metric(
        "many-empty-lines",
        "the same beside 50 that flood empty lines",
        Unit::Times,
        false,
    ),
    metric(
        "broadcast",
        "the same beside one whose empty lines go to 500 readers",
        Unit::Times,
        false,
    ),
    metric(
        "accepts",
        "the same beside an accept storm",
        Unit::Times,
        false,
    ),
    metric(
        "expiry",
        "the same beside 15k that fall silent and are closed",
        Unit::Times,
        false,
    ),
];

/// Silence is given up after four seconds, well within the time that is measured.
const OPTIONS: &[&str] = &["--heartbeat", "1s", "--missed", "3"];

pub fn measure(bench: &Bench, ready: &Ready) -> Result<Measured, Failure> {
    let mut remarks = Vec::new();
    let mut p99 = |mode: Mode,
                   length: &str,
                   disturb: fn(&Bench, &Server) -> Result<Beside, Failure>|
     -> Result<f64, Failure> {
        let server = ready.start(mode, OPTIONS)?;
        let beside = disturb(bench, &server)?;
        let found = quiet(bench, ready, &server, length)?;
        drop(beside);
        remarks.extend(found.remarks());
        found.figure(P99)
    };
    let (length, of_a_storm) = (bench.size.fairness_for, bench.size.storm_for);
    let alone = p99(Mode::Reply, length, |_, _| Ok(Beside::Nobody))?;
    let beside = [
        p99(Mode::Reply, length, flood)?,
        p99(Mode::Reply, length, |_, server| empty_lines(1, 0, server))?,
        p99(Mode::Reply, length, |_, server| empty_lines(50, 0, server))?,
        p99(Mode::FanOut, length, |_, server| {
            empty_lines(1, 500, server)
        })?,
        p99(Mode::Reply, of_a_storm, accepts)?,
        p99(Mode::Reply, length, expiry)?,
    ];
    let times = beside.map(|figure| figure / alone);
    Ok(Measured {
        figures: iter::once(alone).chain(times).collect(),
        remarks,
    })
}

pub const P99: &str = "/groups/0/latency_us/p99";

/// What 50 quiet peers feel, for so long.
pub fn quiet(
    bench: &Bench,
    ready: &Ready,
    server: &Server,
    length: &str,
) -> Result<Found, Failure> {
    let args = [
        "beat",
        "--connections",
        "50",
        "--beat",
        "20ms",
        "--ramp",
        "max",
        "--for",
        length,
    ]
    .map(str::to_string);
    // Recognized by its text, because a broadcast is no reply.
    let wire = Wire {
        expect: r"pong\n",
        ..ready.peer.wire(Mode::Reply)
    };
    harness::run_at(
        Urgency::First,
        &bench.dir,
        slice::from_ref(server),
        &wire,
        &args,
    )
}

/// Runs until it is dropped.
enum Beside {
    Nobody,
    #[expect(dead_code, reason = "held for its drop")]
    Harness(Child),
    #[expect(dead_code, reason = "held for its drop")]
    Storm(Background<Vec<TcpStream>>),
    #[expect(dead_code, reason = "held for its drop")]
    Flood(Background<()>),
    #[expect(dead_code, reason = "held for its drop")]
    Mute(Vec<TcpStream>),
}

const LONGER_THAN_MEASURED: &str = "60s";

fn flood(_: &Bench, server: &Server) -> Result<Beside, Failure> {
    let args = [
        "echo",
        "--active",
        "1",
        "--depth",
        "2000",
        "--size",
        "64",
        "--for",
        LONGER_THAN_MEASURED,
    ];
    harness::disturb(server, &args).map(Beside::Harness)
}

/// The pause between two reads of the peers that only read.
const READ_PAUSE: Duration = Duration::from_millis(2);

/// Sends empty lines, as fast as they are taken, from each of the senders; senders and readers read
/// everything.
fn empty_lines(senders: usize, readers: usize, server: &Server) -> Result<Beside, Failure> {
    let connect = || -> std::io::Result<TcpStream> {
        let stream = TcpStream::connect(server.addr)?;
        stream.set_nonblocking(true)?;
        Ok(stream)
    };
    let all = (0..senders + readers).map(|_| connect());
    let mut all = all
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| Failure::Failed(format!("dial: {error}")))?;
    Ok(Beside::Flood(Background::start(move |over| {
        let (lines, mut scratch) = ([b'\n'; 64 << 10], vec![0; 256 << 10]);
        let mut read_at = Instant::now();
        while !over.is_over() {
            let (senders, readers) = all.split_at_mut(senders);
            for sender in senders {
                let _ = sender.write(&lines);
                let _ = sender.read(&mut scratch);
            }
            if read_at.elapsed() >= READ_PAUSE {
                for reader in readers {
                    let _ = reader.read(&mut scratch);
                }
                read_at = Instant::now();
            }
        }
    })))
}

/// The quiet peers are to be connected, and measured, when the storm breaks.
const CALM_BEFORE: Duration = Duration::from_millis(500);

/// Dials all connections at once, as fast as one thread can, and keeps them: closing as many would
/// be another disturbance.
fn accepts(bench: &Bench, server: &Server) -> Result<Beside, Failure> {
    let (dials, to) = (bench.size.many, server.addr);
    Ok(Beside::Storm(Background::start(move |over| {
        thread::sleep(CALM_BEFORE);
        let dials = (0..dials).take_while(|_| !over.is_over());
        // Rejected connections are part of any storm.
        dials.filter_map(|index| mute(index, to).ok()).collect()
    })))
}

/// Connections whose close is not watched: a load generator that answered 15,000 closes would keep
/// its own core so busy that the quiet peers' packets wait there.
fn expiry(bench: &Bench, server: &Server) -> Result<Beside, Failure> {
    mute_lines(bench, server).map(Beside::Mute)
}

/// The given number of connections, which never send anything.
pub fn mute_lines(bench: &Bench, server: &Server) -> Result<Vec<TcpStream>, Failure> {
    let dial = |index: u32| -> Result<TcpStream, Failure> {
        check_interrupt()?;
        mute(index, server.addr).map_err(|error| Failure::Failed(format!("dial: {error}")))
    };
    (0..bench.size.many).map(dial).collect()
}

/// A source address per thousand connections, so that ports suffice.
fn mute(index: u32, to: SocketAddr) -> std::io::Result<TcpStream> {
    let [.., third, fourth] = (10 + index / 1000).to_be_bytes();
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.bind(&SocketAddr::from((Ipv4Addr::new(127, 0, third, fourth), 0)).into())?;
    // Its port is free again at once.
    socket.set_linger(Some(Duration::ZERO))?;
    socket.connect_timeout(&to.into(), Duration::from_secs(5))?;
    Ok(socket.into())
}
