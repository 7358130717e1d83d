//! `heartline bench`: a load harness for heartline and for other servers whose replies are
//! recognized by lines or bytes.
//!
//! The coordinator, this process, starts workers, and a server if no address is given. It sends
//! commands to the workers, watches the server's process, and reports. A worker is a process with
//! one thread and one poll loop. All children end with the coordinator, because their stdin ends.

mod args;
mod coordinator;
mod counters;
mod histogram;
mod html;
mod job;
mod messages;
mod notes;
mod plan;
mod plot;
mod process;
mod progress;
mod results;
mod scan;
mod server;
mod setup;
mod table;
mod values;
mod worker;
mod workers;

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::SystemTime;

use clap::Args;

use crate::error::{ConfigError, Error};
use crate::net;
use args::BenchCommand;
use coordinator::{Coordinator, Record};
use job::Job;
use plan::Plan;
use process::{Machine, Watched};
use results::{Results, Run};
use server::OwnServer;
use workers::Workers;

/// The exit code of a process that SIGINT has ended, as in a shell.
const EXIT_INTERRUPTED: u8 = 130;

#[derive(Args, Debug)]
pub(super) struct BenchArgs {
    #[command(subcommand)]
    command: BenchCommand,
}

/// Exit codes: 0 measured, 1 could not measure, 2 wrong usage, 130 measured until Ctrl-C.
pub(super) fn run(args: BenchArgs) -> Result<ExitCode, Error> {
    match args.command {
        BenchCommand::Hold(args) => measure(Job::hold(args)?),
        BenchCommand::Echo(args) => measure(Job::echo(args)?),
        BenchCommand::Beat(args) => measure(Job::beat(args)?),
        BenchCommand::Storm(args) => measure(Job::storm(args)?),
        BenchCommand::Push(args) => measure(Job::push(args)?),
        BenchCommand::Dead(args) => measure(Job::dead(args)?),
        BenchCommand::Worker => worker::run(),
        BenchCommand::Server(args) => server::run(args),
    }
}

fn measure(mut job: Job) -> Result<ExitCode, Error> {
    let started = humantime::format_rfc3339_seconds(SystemTime::now()).to_string();
    let (json, html) = (
        create(job.common.json.as_deref())?,
        create(job.common.html.as_deref())?,
    );
    let connections = job.plan.connections();
    let descriptors = net::raise_descriptor_limit();
    let workers = setup::workers(connections, descriptors, job.common.workers)?;
    let addr = job.common.addr.as_deref().map(args::resolve).transpose()?;
    // Before a server is started for nothing; its address will be a loopback one.
    let target = addr.unwrap_or(([127, 0, 0, 1], 0).into());
    job.plan.sources = setup::sources(target, connections, job.common.source.as_ref())?;
    job.plan.more_sources = setup::may_add_sources(target, job.common.source.as_ref());
    let server = match addr {
        Some(_) => None,
        None => Some(OwnServer::start(
            setup::servers(connections, descriptors),
            &job.serve,
        )?),
    };
    job.plan.addr = addr
        .or(server.as_ref().map(|server| server.addr))
        .ok_or_else(|| ConfigError::new("addr", "there is none"))?;
    let watched = watched(&job, server.as_ref())?;

    let plans: Vec<Plan> = (0..workers)
        .map(|worker| job.plan.share(worker, workers))
        .collect();
    let record = Coordinator::new(&job, Workers::spawn(&plans)?, &watched).run()?;
    if record.counters.progress.established == 0 && !record.interrupted {
        return Err(none_established(&record));
    }
    let run = Run {
        heartline: env!("CARGO_PKG_VERSION"),
        command: std::env::args_os()
            .map(|arg| arg.to_string_lossy().into_owned())
            .collect(),
        started,
        machine: Machine::read(),
        addr: job.plan.addr,
        own_server: server.is_some(),
        serve_options: if server.is_some() {
            job.serve.clone()
        } else {
            Vec::new()
        },
        pids: watched.pids.clone(),
        workers,
        sources: record.counters.sources.iter().copied().collect(),
        seed: job.common.seed,
    };
    let mut results = Results::new(&job, run, &record);
    notes::take(&mut results);
    crate::console::print(table::render(&results).as_bytes())?;
    if let Some(file) = json {
        write(
            file,
            "--json",
            &(serde_json::to_string_pretty(&results)
                .map_err(io::Error::from)
                .map_err(Error::io("write --json"))?
                + "\n"),
        )?;
    }
    if let Some(file) = html {
        write(file, "--html", &html::render(&results))?;
    }
    if results.is_all_unanswered() && !record.interrupted {
        crate::console::notice("no message was answered");
        return Ok(ExitCode::FAILURE);
    }
    Ok(if record.interrupted {
        ExitCode::from(EXIT_INTERRUPTED)
    } else {
        ExitCode::SUCCESS
    })
}

/// The processes of the server, if they are known.
fn watched(job: &Job, server: Option<&OwnServer>) -> Result<Watched, Error> {
    let pids = if job.common.pid.is_empty() {
        server.map(OwnServer::pids).unwrap_or_default()
    } else {
        job.common.pid.clone()
    };
    for pid in &job.common.pid {
        process::usage(*pid).map_err(|error| ConfigError::new("pid", format!("{pid}: {error}")))?;
    }
    Ok(Watched { pids })
}

/// Writes to a temporary file and renames it when it is complete, so that a failed run keeps the
/// old file.
struct AtomicFile {
    /// The path of the file without symbolic links: those stay.
    path: PathBuf,
    /// The temporary file; `None` if `path` is not a regular file, such as a pipe.
    temporary: Option<PathBuf>,
    file: File,
}

impl AtomicFile {
    fn create(path: &Path) -> io::Result<Self> {
        let is_special = path.metadata().is_ok_and(|metadata| !metadata.is_file());
        let path = path.canonicalize().unwrap_or_else(|_| path.to_owned());
        let temporary = (!is_special).then(|| {
            let mut name = path.as_os_str().to_owned();
            name.push(format!(".{}.partial", std::process::id()));
            PathBuf::from(name)
        });
        let file = match &temporary {
            Some(temporary) => File::create(temporary)?,
            None => File::options().write(true).open(&path)?,
        };
        Ok(AtomicFile {
            path,
            temporary,
            file,
        })
    }

    fn finish(mut self, text: &str) -> io::Result<()> {
        self.file.write_all(text.as_bytes())?;
        match self.temporary.take() {
            Some(temporary) => std::fs::rename(temporary, &self.path),
            None => Ok(()),
        }
    }
}

impl Drop for AtomicFile {
    fn drop(&mut self) {
        if let Some(temporary) = &self.temporary {
            let _ = std::fs::remove_file(temporary);
        }
    }
}

/// Opened before the measurement, so that an error is reported before it.
fn create(path: Option<&Path>) -> Result<Option<AtomicFile>, Error> {
    path.map(|path| {
        AtomicFile::create(path).map_err(Error::io(format!("write {}", path.display())))
    })
    .transpose()
}

fn write(file: AtomicFile, flag: &str, text: &str) -> Result<(), Error> {
    file.finish(text)
        .map_err(Error::io(format!("write {flag}")))
}

fn none_established(record: &Record) -> Error {
    let causes: Vec<String> = record
        .counters
        .failed
        .iter()
        .map(|(cause, count)| format!("{count} {cause}"))
        .collect();
    Error::io("measure: no connection was established")(io::Error::other(causes.join(", ")))
}
