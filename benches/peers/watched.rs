//! What a quiet peer feels of operators: a scrape every second, and a page that is open.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use crate::aside::{Aside, Over};
use crate::child::Failure;
use crate::fairness::{P99, mute_lines, quiet};
use crate::peers::{Mode, Ready};
use crate::rounds::Bench;
use crate::scenarios::{Measured, Metric, metric};
use crate::stats::Unit;

pub const ID: &str = "watched";

pub const METRICS: &[Metric] = &[
    metric("unwatched", "p99 of 50 quiet peers beside 15k lines", Unit::Microseconds, false),
    metric("watched", "the same, scraped every second and with a page open", Unit::Times, false),
];

pub fn measure(bench: &Bench, ready: &Ready) -> Result<Measured, Failure> {
    let socket = bench.dir.join("admin.sock");
    let admin = format!("unix:{}", socket.display());
    // Nobody is asked meanwhile: what is to be seen is the operators' part alone.
    let options = ["--heartbeat", "60s", "--admin", &admin];
    let mut remarks = Vec::new();
    let mut p99 = |watch: bool| -> Result<f64, Failure> {
        let server = ready.start(Mode::Reply, &options)?;
        let lines = mute_lines(bench, &server)?;
        let operators = if watch { operators(&socket) } else { Vec::new() };
        let found = quiet(bench, ready, server, bench.size.fairness_for);
        drop(lines);
        let answers: Vec<u32> = operators.into_iter().map(|operator| operator.end().unwrap_or(0)).collect();
        let found = found?;
        if answers.contains(&0) {
            return Err(Failure::Failed(format!("the admin endpoint answered {answers:?} times")));
        }
        remarks.extend(found.remarks());
        found.figure(P99)
    };
    let unwatched = p99(false)?;
    let watched = p99(true)?;
    Ok(Measured { figures: vec![unwatched, watched / unwatched], remarks })
}

/// What a scraper and one page ask for, and how often; each says how often it was answered.
fn operators(socket: &Path) -> Vec<Aside<u32>> {
    let second = Duration::from_secs(1);
    vec![
        operator(socket, "metrics", second),
        operator(socket, "events", second),
        operator(socket, "connections?sort=silence&limit=100", 2 * second),
    ]
}

/// Asks for one thing again and again.
fn operator(socket: &Path, path: &'static str, every: Duration) -> Aside<u32> {
    let socket = PathBuf::from(socket);
    Aside::start(move |over| {
        let mut answers = 0;
        while !over.is_over() {
            // An error is no answer, and none at all is a failure of the scenario.
            answers += u32::from(ask(&socket, path, over).is_ok());
            thread::sleep(every);
        }
        answers
    })
}

/// Reads the answer to its end, which that of `events` has only when the server goes.
fn ask(socket: &Path, path: &str, over: &Over) -> io::Result<()> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(Duration::from_millis(500)))?;
    write!(stream, "GET /{path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let (mut read, mut buffer) = (0, [0; 4096]);
    while !over.is_over() {
        match stream.read(&mut buffer) {
            Ok(0) => break,
            Ok(n) => read += n,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    if read == 0 { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(()) }
}
