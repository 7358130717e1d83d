//! The latency of a quiet peer beside operators: a scrape every second, and an open page; or a
//! message to all, again and again.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use crate::background::{Background, Over};
use crate::child::{Failure, pause};
use crate::fairness::{P99, mute_lines, quiet};
use crate::peers::{Mode, Ready};
use crate::proc;
use crate::scenario::{Bench, Measured, Metric, metric};
use crate::stats::{Spread, Unit};

pub const ID: &str = "watched";

pub const METRICS: &[Metric] = &[
    metric(
        "unwatched",
        "p99 of 50 quiet peers beside 15k connections",
        Unit::Microseconds,
        false,
    ),
    metric(
        "again",
        "the same once more: what no difference looks like",
        Unit::Times,
        false,
    ),
    metric(
        "watched",
        "the same, scraped every second and with a page open",
        Unit::Times,
        false,
    ),
    metric(
        "told",
        "the same, with a message to all 15k twice a second",
        Unit::Times,
        false,
    ),
    metric(
        "processor",
        "processor time of the server that scrapes and the page take, per second",
        Unit::Milliseconds,
        false,
    ),
];

/// Short spells on one server in turn, and medians over them, so that changes of the machine affect
/// all kinds alike. Each kind has each place once.
const ORDER: [[Kind; 4]; 4] = [
    [Unwatched, Again, Watched, Broadcasting],
    [Again, Watched, Broadcasting, Unwatched],
    [Watched, Broadcasting, Unwatched, Again],
    [Broadcasting, Unwatched, Again, Watched],
];

const TIMES: usize = 2;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Unwatched,
    Again,
    Watched,
    Broadcasting,
}

use Kind::{Again, Broadcasting, Unwatched, Watched};

/// The requests of an operator, and their rate.
struct Request {
    request: &'static str,
    body: &'static str,
    every: Duration,
}

const SECOND: Duration = Duration::from_secs(1);

/// A scraper and one page.
const WATCH: &[Request] = &[
    Request {
        request: "GET /metrics",
        body: "",
        every: SECOND,
    },
    Request {
        request: "GET /events",
        body: "",
        every: SECOND,
    },
    Request {
        request: "GET /connections?sort=silence&limit=100",
        body: "",
        every: Duration::from_secs(2),
    },
];

const BROADCAST: &[Request] = &[Request {
    request: "POST /broadcast",
    body: "hello",
    every: Duration::from_millis(500),
}];

impl Kind {
    fn requests(self) -> &'static [Request] {
        match self {
            Unwatched | Again => &[],
            Watched => WATCH,
            Broadcasting => BROADCAST,
        }
    }
}

pub fn measure(bench: &Bench, ready: &Ready) -> Result<Measured, Failure> {
    let socket = bench.dir.join("admin.sock");
    let admin = format!("unix:{}", socket.display());
    // Connections are not pinged meanwhile: only the operators' part is measured.
    let server = ready.start(Mode::Reply, &["--heartbeat", "10m", "--admin", &admin])?;
    let lines = mute_lines(bench, &server)?;
    let (mut p99, mut remarks) = (Vec::new(), Vec::new());
    for kind in [ORDER; TIMES].into_iter().flatten().flatten() {
        let found = beside(&socket, kind.requests(), || {
            quiet(bench, ready, &server, bench.size.watched_for)
        })?;
        remarks.extend(found.remarks());
        p99.push((kind, found.figure(P99)?));
    }
    // Without other traffic, so that nothing else wakes the server.
    let alone = || -> Result<f64, Failure> {
        let (began, before) = (Instant::now(), proc::cpu_ns(server.pid())?);
        pause(bench.size.watchers_alone_for)?;
        Ok((proc::cpu_ns(server.pid())? - before) / 1e6 / began.elapsed().as_secs_f64())
    };
    let processor = beside(&socket, WATCH, alone)?;
    drop(lines);
    let median = |of: Kind| {
        let figures = p99
            .iter()
            .filter(|(kind, _)| *kind == of)
            .map(|(_, p99)| *p99);
        Spread::of(figures).map_or(f64::NAN, |spread| spread.median)
    };
    let [unwatched, again, watched, told] = [Unwatched, Again, Watched, Broadcasting].map(median);
    Ok(Measured {
        figures: vec![
            unwatched,
            again / unwatched,
            watched / unwatched,
            told / unwatched,
            processor,
        ],
        remarks,
    })
}

/// What is done beside these requests, all of which must be answered.
fn beside<T>(
    socket: &Path,
    requests: &'static [Request],
    run: impl FnOnce() -> Result<T, Failure>,
) -> Result<T, Failure> {
    let operators: Vec<Background<u32>> =
        requests.iter().map(|wish| operator(socket, wish)).collect();
    let done = run()?;
    let answers: Vec<u32> = operators
        .into_iter()
        .map(|operator| operator.end().unwrap_or(0))
        .collect();
    match answers.contains(&0) {
        true => Err(Failure::Failed(format!(
            "the admin endpoint answered {answers:?} times"
        ))),
        false => Ok(done),
    }
}

/// Repeats one request, and returns how often it was answered.
fn operator(socket: &Path, wish: &'static Request) -> Background<u32> {
    let socket = PathBuf::from(socket);
    Background::start(move |over| {
        let mut answers = 0;
        while !over.is_over() {
            // An error is not a reply, and no reply at all fails the scenario.
            answers += u32::from(ask(&socket, wish, over).is_ok());
            thread::sleep(wish.every);
        }
        answers
    })
}

/// Reads the answer to its end; that of `events` ends with the server.
fn ask(socket: &Path, Request { request, body, .. }: &Request, over: &Over) -> io::Result<()> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(Duration::from_millis(500)))?;
    write!(
        stream,
        "{request} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )?;
    let (mut read, mut buffer) = (0, [0; 4096]);
    while !over.is_over() {
        match stream.read(&mut buffer) {
            Ok(0) => break,
            Ok(n) => read += n,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    if read == 0 {
        Err(io::ErrorKind::UnexpectedEof.into())
    } else {
        Ok(())
    }
}
