//! The compared servers: how each is found or built, started, and queried.

use std::env;
use std::fmt;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use clap::ValueEnum;
use serde::Serialize;

use crate::child::{self, Child, Failure, SERVER_CORE, pause, run};
use crate::machine;

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Peer {
    Baseline,
    Heartline,
    Tokio,
    Go,
    Redis,
    Nats,
    Mosquitto,
}

use Peer::{Baseline, Go, Heartline, Mosquitto, Nats, Redis, Tokio};

/// Names in the tables.
impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Baseline => "baseline",
            Heartline => "heartline",
            Tokio => "tokio",
            Go => "Go",
            Redis => "Redis",
            Nats => "NATS",
            Mosquitto => "Mosquitto",
        })
    }
}

/// A peer that can be started.
pub struct Ready {
    pub peer: Peer,
    pub version: String,
    program: PathBuf,
    dir: PathBuf,
}

/// Finds or builds the peer, or says why it is missing.
pub fn prepare(peer: Peer, dir: &Path) -> Result<Ready, String> {
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/peers");
    let (program, version) = match peer {
        Baseline => {
            let program = dir.join("baseline");
            run(Command::new("cc")
                .args(["-O2", "-o"])
                .arg(&program)
                .arg(sources.join("baseline.c")))
            .map_err(|problem| install(&problem, "gcc"))?;
            (
                program,
                format!(
                    "epoll loop in C, -O2, {}",
                    first_line(&run(Command::new("cc").arg("--version"))?)
                ),
            )
        }
        Heartline => {
            let program = PathBuf::from(env!("CARGO_BIN_EXE_heartline"));
            let revision = machine::revision()
                .map_or_else(String::new, |revision| format!(", sources {revision}"));
            let version = first_line(&run(Command::new(&program).arg("--version"))?);
            (program, format!("{version}{revision}, {}", rustc()?))
        }
        Tokio => {
            let target = dir.join("tokio");
            let mut cargo = Command::new(cargo());
            cargo
                .args(["build", "--release", "--locked", "--manifest-path"])
                .arg(sources.join("tokio/Cargo.toml"));
            run(cargo.arg("--target-dir").arg(&target))?;
            let lock = include_str!("tokio/Cargo.lock");
            let version = lock
                .split_once("name = \"tokio\"\nversion = \"")
                .and_then(|(_, rest)| rest.split('"').next())
                .unwrap_or("of unknown version");
            (
                target.join("release/heartline-peer-tokio"),
                format!(
                    "tokio {version}, current_thread, timeout per connection, {}",
                    rustc()?
                ),
            )
        }
        Go => {
            let program = dir.join("echo-go");
            let mut go = Command::new("go");
            // The sources may be in a repository that belongs to another user.
            go.current_dir(sources.join("go"))
                .args(["build", "-buildvcs=false", "-o"])
                .arg(&program)
                .arg(".");
            run(&mut go).map_err(|problem| install(&problem, "golang-go"))?;
            (
                program,
                format!(
                    "{}, goroutine per connection, GOMAXPROCS=1",
                    first_line(&run(Command::new("go").arg("version"))?)
                ),
            )
        }
        Redis => package("redis-server", "redis-server", &["--version"])?,
        Nats => package("nats-server", "nats-server", &["--version"])?,
        Mosquitto => package("mosquitto", "mosquitto", &["-h"])?,
    };
    Ok(Ready {
        peer,
        version,
        program,
        dir: dir.to_path_buf(),
    })
}

fn install(problem: &str, package: &str) -> String {
    format!("{problem} (Debian package: {package})")
}

/// A program that Debian packages.
fn package(name: &str, package: &str, version: &[&str]) -> Result<(PathBuf, String), String> {
    // Servers are in directories that only root has in its path.
    let path = env::var_os("PATH").unwrap_or_default();
    let dirs = env::split_paths(&path).chain(["/usr/sbin".into(), "/usr/local/sbin".into()]);
    let found = dirs
        .map(|dir| dir.join(name))
        .find(|program| program.is_file());
    let program =
        found.ok_or_else(|| format!("{name} is not installed (Debian package: {package})"))?;
    let output = Command::new(&program)
        .args(version)
        .output()
        .map_err(|error| format!("{name}: {error}"))?;
    // Mosquitto prints its version with its help, and fails.
    let line = first_line(&String::from_utf8_lossy(&output.stdout));
    // Redis appends its build hash.
    let line = line.split(" sha=").next().unwrap_or(&line).to_string();
    Ok((program, line))
}

fn rustc() -> Result<String, String> {
    Ok(first_line(&run(Command::new(
        env::var_os("RUSTC").unwrap_or("rustc".into()),
    )
    .arg("--version"))?))
}

pub fn cargo() -> std::ffi::OsString {
    env::var_os("CARGO").unwrap_or("cargo".into())
}

fn first_line(text: &str) -> String {
    text.lines()
        .map(str::trim)
        .find(|line| !line.is_empty())
        .unwrap_or_default()
        .to_string()
}

/// What a server does with messages.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Answer each.
    Reply,
    /// Pass each on to all others.
    FanOut,
}

/// How the harness talks to a peer: values of its flags `--hello`, `--send`, `--expect`,
/// `--answer`.
pub struct Wire {
    pub hello: Option<&'static str>,
    pub send: Option<&'static str>,
    pub expect: &'static str,
    pub answer: &'static str,
}

/// MQTT 3.1.1 CONNECT: clean session, keep-alive 60 s, empty client id.
const MQTT_CONNECT: &str = r"\x10\x0c\0\x04MQTT\x04\x02\0\x3c\0\0";
/// With its line end as long as the line that the others pass on.
const NATS_PUBLISH: &str = r"PUB f 31\r\nxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\r\n";
const REDIS_PUBLISH: &str = r"PUBLISH f xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\r\n";
const PUBLISHED: &str = r"xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\r\n";

impl Peer {
    pub fn wire(self, mode: Mode) -> Wire {
        let lines = Wire {
            hello: None,
            send: None,
            expect: "lines:1",
            answer: "off",
        };
        match self {
            Baseline | Tokio | Go => lines,
            Heartline => Wire {
                answer: r"ping\n=pong\n",
                ..lines
            },
            Redis if mode == Mode::FanOut => Wire {
                hello: Some(r"SUBSCRIBE f\r\n"),
                send: Some(REDIS_PUBLISH),
                expect: PUBLISHED,
                ..lines
            },
            Redis => Wire {
                send: Some(r"PING\r\n"),
                ..lines
            },
            Nats => {
                let (hello, send, expect) = match mode {
                    Mode::Reply => (r#"CONNECT {"verbose":false}\r\n"#, r"PING\r\n", r"PONG\r\n"),
                    Mode::FanOut => (
                        r#"CONNECT {"verbose":false}\r\nSUB f 1\r\n"#,
                        NATS_PUBLISH,
                        PUBLISHED,
                    ),
                };
                Wire {
                    hello: Some(hello),
                    send: Some(send),
                    expect,
                    answer: r"PING\r\n=PONG\r\n",
                }
            }
            Mosquitto => Wire {
                hello: Some(MQTT_CONNECT),
                ..lines
            },
        }
    }

    /// A probe that proves that the server answers, and the end of the answer.
    fn probe(self) -> (&'static [u8], &'static [u8]) {
        match self {
            Baseline | Heartline | Tokio | Go => (b"probe\n", b"echo: probe\n"),
            Redis => (b"PING\r\n", b"+PONG\r\n"),
            Nats => (b"CONNECT {\"verbose\":false}\r\nPING\r\n", b"PONG\r\n"),
            Mosquitto => (b"\x10\x0c\0\x04MQTT\x04\x02\0\x3c\0\0", b"\x20\x02\0\0"),
        }
    }
}

/// A server that runs.
pub struct Server {
    child: Child,
    pub addr: SocketAddr,
}

/// The port that was free may be taken before the server has it.
const TRIES: usize = 3;
const START_LIMIT: Duration = Duration::from_secs(10);
const END_LIMIT: Duration = Duration::from_secs(10);
const START_LOOK: Duration = Duration::from_millis(20);

impl Ready {
    /// Starts it on its core and returns when it answers. `options` are for heartline alone.
    pub fn start(&self, mode: Mode, options: &[&str]) -> Result<Server, Failure> {
        let mut outcome = Err(Failure::Failed("not tried".to_string()));
        for _ in 0..TRIES {
            let port = free_port()?;
            outcome = self.start_at(port, mode, options);
            if !matches!(outcome, Err(Failure::Failed(_))) {
                break;
            }
        }
        outcome
    }

    /// The same on a port that it may have to share.
    pub fn start_at(&self, port: u16, mode: Mode, options: &[&str]) -> Result<Server, Failure> {
        if self.peer == Mosquitto {
            let config = format!(
                "listener {port} 127.0.0.1\nallow_anonymous true\npersistence false\nlog_dest none\nmax_connections -1\n"
            );
            child::write(&self.dir.join("mosquitto.conf"), &config)?;
        }
        let child = Child::start(SERVER_CORE, &self.program, |command| {
            self.arguments(command, port, mode, options)
        })?;
        let mut server = Server {
            child,
            addr: SocketAddr::from((Ipv4Addr::LOCALHOST, port)),
        };
        self.wait_until_it_answers(&mut server, mode)?;
        Ok(server)
    }

    fn arguments(&self, command: &mut Command, port: u16, mode: Mode, options: &[&str]) {
        let port = port.to_string();
        command.current_dir(&self.dir);
        match self.peer {
            Baseline => command.args([
                port.as_str(),
                if mode == Mode::FanOut {
                    "fan-out"
                } else {
                    "echo: "
                },
            ]),
            Tokio => command.arg(port),
            // It has one core; more threads than that would only take turns on it.
            Go => command.arg(port).env("GOMAXPROCS", "1"),
            Heartline => {
                command
                    .args(["serve", &format!("127.0.0.1:{port}"), "--framing", "lines"])
                    .args(options);
                if !options.contains(&"--log-level") {
                    command.args(["--log-level", "off"]);
                }
                command.args([
                    "--app",
                    if mode == Mode::FanOut {
                        "broadcast"
                    } else {
                        "echo"
                    },
                ])
            }
            Redis => {
                command.args([
                    "--port",
                    &port,
                    "--bind",
                    "127.0.0.1",
                    "--save",
                    "",
                    "--appendonly",
                    "no",
                ]);
                command.args([
                    "--maxclients",
                    "19000",
                    "--tcp-backlog",
                    "4096",
                    "--daemonize",
                    "no",
                ])
            }
            Nats => command
                .args(["-a", "127.0.0.1", "-p", &port])
                .env("GOMAXPROCS", "1"),
            Mosquitto => command.arg("-c").arg(self.dir.join("mosquitto.conf")),
        };
    }

    fn wait_until_it_answers(&self, server: &mut Server, mode: Mode) -> Result<(), Failure> {
        let until = Instant::now() + START_LIMIT;
        loop {
            if server.child.has_ended() {
                return Err(Failure::Failed("the server ended by itself".to_string()));
            }
            let problem =
                match TcpStream::connect(server.addr).and_then(|stream| self.probe(stream, mode)) {
                    Ok(()) => return Ok(()),
                    Err(error) => error,
                };
            if Instant::now() > until {
                return Err(Failure::Failed(format!(
                    "the server did not answer: {problem}"
                )));
            }
            pause(START_LOOK)?;
        }
    }

    fn probe(&self, mut stream: TcpStream, mode: Mode) -> std::io::Result<()> {
        if mode == Mode::FanOut {
            // No reply would come.
            return Ok(());
        }
        let (question, answer) = self.peer.probe();
        stream.set_read_timeout(Some(Duration::from_secs(2)))?;
        stream.write_all(question)?;
        let (mut got, mut buffer) = (Vec::new(), [0; 4096]);
        while !got.ends_with(answer) {
            match stream.read(&mut buffer)? {
                0 => return Err(std::io::ErrorKind::UnexpectedEof.into()),
                // No greeting is as long.
                _ if got.len() > 64 * 1024 => return Err(std::io::ErrorKind::InvalidData.into()),
                count => got.extend_from_slice(&buffer[..count]),
            }
        }
        Ok(())
    }
}

impl Server {
    pub fn pid(&self) -> u32 {
        self.child.pid()
    }

    /// Asks it to end, and waits until it has.
    pub fn terminate(self) -> Result<(), Failure> {
        self.child.terminate()?;
        match self.child.wait(END_LIMIT)? {
            status if status.success() => Ok(()),
            status => Err(Failure::Failed(format!("the server ended with {status}"))),
        }
    }
}

pub fn free_port() -> Result<u16, Failure> {
    let found =
        TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|listener| listener.local_addr());
    Ok(found
        .map_err(|error| format!("find a free port: {error}"))?
        .port())
}
