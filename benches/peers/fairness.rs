//! What a quiet peer feels of those who are not.

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
        "the same beside 15k that fall silent and are given up",
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
    // Known by its text, as what is broadcast is no answer.
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

/// Goes on until it is dropped.
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

/// How long those who only read are left alone between two looks.
const READ_PAUSE: Duration = Duration::from_millis(2);

/// Lines with nothing in them, as fast as they are taken, from each of the senders; they and the
/// readers read whatever comes.
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

/// Everybody dials at once, as fast as one thread can, and stays: closing as many would be another
/// disturbance.
fn accepts(bench: &Bench, server: &Server) -> Result<Beside, Failure> {
    let (dials, to) = (bench.size.many, server.addr);
    Ok(Beside::Storm(Background::start(move |over| {
        thread::sleep(CALM_BEFORE);
        let dials = (0..dials).take_while(|_| !over.is_over());
        // Who is not let in is part of any storm.
        dials.filter_map(|index| mute(index, to).ok()).collect()
    })))
}

/// Lines of whom nobody looks whether they are closed: a load generator that answered 15,000 closes
/// would keep its own core so busy that the quiet peers' packets wait there.
fn expiry(bench: &Bench, server: &Server) -> Result<Beside, Failure> {
    mute_lines(bench, server).map(Beside::Mute)
}

/// As many as there are to be, that never say a thing.
pub fn mute_lines(bench: &Bench, server: &Server) -> Result<Vec<TcpStream>, Failure> {
    let dial = |index: u32| -> Result<TcpStream, Failure> {
        check_interrupt()?;
        mute(index, server.addr).map_err(|error| Failure::Failed(format!("dial: {error}")))
    };
    (0..bench.size.many).map(dial).collect()
}

/// From a source address of its own per thousand, so that ports last.
fn mute(index: u32, to: SocketAddr) -> std::io::Result<TcpStream> {
    let [.., third, fourth] = (10 + index / 1000).to_be_bytes();
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.bind(&SocketAddr::from((Ipv4Addr::new(127, 0, third, fourth), 0)).into())?;
    // Its port is free again at once.
    socket.set_linger(Some(Duration::ZERO))?;
    socket.connect_timeout(&to.into(), Duration::from_secs(5))?;
    Ok(socket.into())
}
