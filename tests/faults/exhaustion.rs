//! A machine whose resources are exhausted: no descriptors, no room for the log.

use std::fs;
use std::io::ErrorKind;
use std::path::PathBuf;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, Signal, prlimit};

use crate::common::{Peer, Serve, field, wait_until};
use crate::{addr, is_served, ms, served};

/// So that the machine's speed has no effect on pings and their answers.
const UNASKED: [&str; 2] = ["--heartbeat", "off"];

/// No more can be admitted.
const DESCRIPTORS: usize = 64;

/// Further peers are rejected for this reason, and connected ones are not affected.
fn five_hundred_peers(server: &Serve, reason: &str) {
    let mut inside: Vec<Peer> = (0..20).map(|_| served(server)).collect();
    let mut late: Vec<Peer> = Vec::new();
    for _ in 0..480 {
        late.push(server.connect());
        let sample = late.len() % inside.len();
        is_served(&mut inside[sample]);
    }
    let out = |peers: &mut [Peer]| {
        peers
            .iter_mut()
            .map(Peer::has_ended)
            .filter(|ended| *ended)
            .count()
    };
    wait_until("those who do not fit are turned away", || {
        out(&mut late) + DESCRIPTORS >= 500
    });
    inside.iter_mut().for_each(is_served);
    assert_eq!(
        server.closes(),
        Vec::<String>::new(),
        "nobody who was let in was put out"
    );
    let log = server.log();
    let refusals: Vec<&str> = log
        .lines()
        .filter(|line| line.contains("] refuse "))
        .collect();
    assert!(
        refusals.len() >= 500 - DESCRIPTORS,
        "{} refusals",
        refusals.len()
    );
    assert!(
        refusals.iter().all(|line| field(line, "reason") == reason),
        "{refusals:?}"
    );

    // One more waits in the backlog, and the server has nothing to do but wait.
    let crowd: Vec<Peer> = (0..50).map(|_| server.connect()).collect();
    let before = server.cpu_time();
    thread::sleep(ms(1000));
    let used = server.cpu_time() - before;
    assert!(
        used < ms(200),
        "{used:?} of processor time in a second in which there was nothing to do"
    );
    drop((crowd, late));
    inside.truncate(10);
    wait_until("there is room again", || {
        server.descriptors() + 30 <= DESCRIPTORS
    });
    let mut new: Vec<Peer> = (0..10).map(|_| served(server)).collect();
    inside.iter_mut().chain(&mut new).for_each(is_served);
}

#[test]
fn sixty_four_descriptors_from_the_start_and_five_hundred_peers() {
    let mut command = Command::new("sh");
    command.args([
        "-c",
        "ulimit -n 64 && exec \"$0\" \"$@\"",
        env!("CARGO_BIN_EXE_heartline"),
    ]);
    let server = Serve::spawn(command, &["127.0.0.1:0"], &UNASKED);
    // Admission rejects before descriptors run out.
    five_hundred_peers(&server, "full");
}

/// The limit that was read at the start promised more: only `accept` itself reports that no
/// descriptor is left.
#[test]
fn sixty_four_descriptors_all_of_a_sudden_and_five_hundred_peers() {
    let server = Serve::start(&UNASKED);
    prlimit(
        Some(server.pid()),
        Resource::Nofile,
        Rlimit {
            current: Some(64),
            maximum: Some(64),
        },
    )
    .expect("the process is ours");
    five_hundred_peers(&server, "no-descriptors");
}

/// When the kernel's queue is full it drops the dial, and the dialler's kernel retries: nothing is
/// rejected, and connected peers are not affected.
#[test]
fn full_backlog_delays_dials_and_loses_none() {
    let server = Serve::start(&["--backlog", "4", "--heartbeat", "off"]);
    let mut inside: Vec<Peer> = (0..3).map(|_| served(&server)).collect();
    server.signal(Signal::STOP);
    let addr = server.addr();
    let dials: Vec<_> = (0..20)
        .map(|_| {
            thread::spawn(move || {
                let mut peer = Peer::connect(addr);
                is_served(&mut peer);
            })
        })
        .collect();
    thread::sleep(ms(500));
    server.signal(Signal::CONT);
    inside.iter_mut().for_each(is_served);
    for dial in dials {
        dial.join().expect("it was let in, late or not");
    }
    inside.iter_mut().for_each(is_served);
}

/// Opens, uses and drops peers, each of which causes one or two log lines, up to a thousand a
/// second of each kind.
fn make_log_lines(server: &Serve, time: Duration) {
    let start = Instant::now();
    while start.elapsed() < time {
        served(server);
    }
}

fn serve_logging_to(log: PathBuf) -> Serve {
    Serve::logging_to(
        log,
        Command::new(env!("CARGO_BIN_EXE_heartline")),
        &["127.0.0.1:0"],
        &UNASKED,
    )
}

#[test]
fn full_disk_loses_log_lines_only() {
    let mut server = serve_logging_to("/dev/full".into());
    let mut peer = served(&server);
    make_log_lines(&server, ms(500));
    let memory = server.status("VmRSS");
    make_log_lines(&server, ms(3000));
    let cpu = server.cpu_time();
    thread::sleep(ms(1000));
    let used = server.cpu_time() - cpu;
    assert!(
        used < ms(200),
        "{used:?} of processor time in a second in which there was nothing to do"
    );
    let grown = server.status("VmRSS").saturating_sub(memory);
    assert!(
        grown < 128,
        "what cannot be written is kept: {grown} kB more"
    );
    is_served(&mut peer);
    drop(peer);
    server.signal(Signal::TERM);
    assert_eq!(server.wait().code(), Some(0));
}

/// A disk of the test's own, gone with it.
struct Disk {
    dir: tempfile::TempDir,
}

impl Disk {
    fn new(size: &str) -> Disk {
        let disk = Disk {
            dir: tempfile::tempdir().expect("a temporary directory"),
        };
        disk.run(Command::new("mount").args([
            "-t",
            "tmpfs",
            "-o",
            &format!("size={size}"),
            "heartline",
        ]));
        disk
    }

    fn run(&self, command: &mut Command) {
        let status = command.arg(self.dir.path()).status().expect("it starts");
        assert!(status.success(), "{command:?}");
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Its last file may still be open: its space is freed when that is closed.
        let _ = Command::new("umount")
            .arg("--lazy")
            .arg(self.dir.path())
            .status();
    }
}

#[test]
#[ignore = "mounts a file system: needs root"]
fn log_continues_when_the_disk_has_room() {
    let disk = Disk::new("64k");
    let (log, filler) = (disk.dir.path().join("log"), disk.dir.path().join("filler"));
    let server = serve_logging_to(log);
    let full = fs::write(&filler, [0; 128 * 1024]);
    assert_eq!(
        full.expect_err("no more room").kind(),
        ErrorKind::StorageFull
    );
    let mut peer = served(&server);
    make_log_lines(&server, ms(500));
    is_served(&mut peer);
    let logged = server.closes().len();
    assert!(logged < 100, "{logged} lines found room on a full disk");

    fs::remove_file(&filler).expect("a file of our own");
    wait_until("lines are logged again", || {
        let late = addr(&served(&server));
        // The last ones may exceed what is logged per second, and the first may be damaged by the
        // truncation.
        thread::sleep(ms(100));
        server
            .closes()
            .iter()
            .any(|close| close.contains(&format!("addr={late} ")))
    });
    is_served(&mut peer);
}
