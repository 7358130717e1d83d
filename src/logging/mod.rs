//! Logs: one line per event, `key=value`, to stderr or to a file.
//!
//! A log whose reader stands still holds nothing up: lines wait in a buffer, and those that find no
//! room are dropped and counted. Once there is room again a line says how many: `log-dropped n=3`.

pub(crate) mod output;

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use log::LevelFilter;
use rustix::fs::{Access, access};
use simplelog::{ConfigBuilder, LevelPadding, WriteLogger};

use crate::args::{LogArgs, LogLevel};
use crate::error::Error;
use output::Output;

/// Most bytes that wait for the log's reader: several hundred lines.
const MAX_PENDING: usize = 64 * 1024;
/// How often the log is tried again while lines wait.
const RETRY: Duration = Duration::from_millis(100);
/// How long the end of the process waits for the log's reader.
const FINISH: Duration = Duration::from_secs(1);

/// The target of the lines. It can be another file than at the start: see [`prepare`].
static SINK: Mutex<Option<Output>> = Mutex::new(None);
/// Lines wait, or were dropped and that was not logged yet.
static PENDING: AtomicBool = AtomicBool::new(false);
static DROPPED: AtomicU64 = AtomicU64::new(0);
static DROPPED_UNSAID: AtomicU64 = AtomicU64::new(0);

/// Collects the pieces that the logger writes, and passes on whole lines.
#[derive(Default)]
struct Lines(Vec<u8>);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.extend_from_slice(bytes);
        if bytes.ends_with(b"\n") {
            write_line(&self.0);
            self.0.clear();
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn sink() -> MutexGuard<'static, Option<Output>> {
    SINK.lock().unwrap_or_else(PoisonError::into_inner)
}

fn write_line(line: &[u8]) {
    let Some(output) = &mut *sink() else { return };
    if !output.write(line).unwrap_or(false) {
        DROPPED.fetch_add(1, Ordering::Relaxed);
        DROPPED_UNSAID.fetch_add(1, Ordering::Relaxed);
    }
    let is_idle = output.flush().unwrap_or(true);
    let is_unsaid = DROPPED_UNSAID.load(Ordering::Relaxed) > 0;
    PENDING.store(!is_idle || is_unsaid, Ordering::Relaxed);
}

/// Lines dropped since the start, because the log's reader stood still or was gone.
pub(crate) fn dropped() -> u64 {
    DROPPED.load(Ordering::Relaxed)
}

/// When [`flush`] is to be called at the latest; `None` if no line waits.
pub(crate) fn next_wait() -> Option<Duration> {
    PENDING.load(Ordering::Relaxed).then_some(RETRY)
}

/// Writes waiting lines, and logs how many were dropped. To be called in each turn of a loop.
pub(crate) fn flush() {
    if !PENDING.load(Ordering::Relaxed) {
        return;
    }
    let is_idle = sink()
        .as_mut()
        .is_none_or(|output| output.flush().unwrap_or(true));
    if is_idle {
        PENDING.store(false, Ordering::Relaxed);
        let dropped = DROPPED_UNSAID.swap(0, Ordering::Relaxed);
        if dropped > 0 {
            log::warn!("log-dropped n={dropped}");
        }
    }
}

/// Gives the reader a moment to take the last lines. For the end of the process.
pub(crate) fn finish() {
    if let Some(output) = &mut *sink() {
        output.finish(FINISH);
    }
}

/// Starts logging with these flags. Fails if the file cannot be opened, which comes from `place`.
///
/// A second call has no effect: the first logger of a process stays.
pub(crate) fn start(args: &LogArgs, place: &str) -> Result<(), Error> {
    // `2026-01-31T12:00:00.123456789Z [INFO] message`: the time in UTC, without thread and module,
    // of which there is one each.
    let config = ConfigBuilder::new()
        .set_time_format_rfc3339()
        .set_time_level(LevelFilter::Error)
        .set_level_padding(LevelPadding::Off)
        .set_thread_level(LevelFilter::Off)
        .set_target_level(LevelFilter::Off)
        .set_location_level(LevelFilter::Off)
        .build();
    // It lets everything through: the level that counts is the one that can be set anew.
    let _ = WriteLogger::init(LevelFilter::Trace, config, Lines::default());
    prepare(args, place)?.take_effect();
    Ok(())
}

/// A log that is open, and not yet written to.
pub(crate) struct Prepared {
    output: Output,
    level: LevelFilter,
}

/// Prepares a change of the level and the file. A file of the same name is opened anew, so that the
/// old one can have been renamed. If it cannot be opened, nothing changes.
pub(crate) fn prepare(args: &LogArgs, place: &str) -> Result<Prepared, Error> {
    Ok(Prepared {
        output: open(args, place)?,
        level: filter(args.log_level),
    })
}

impl Prepared {
    /// From now on this is the log.
    pub(crate) fn take_effect(self) {
        *sink() = Some(self.output);
        log::set_max_level(self.level);
    }
}

/// Fails as [`prepare`] would, as far as that can be known without making the file.
pub(crate) fn check(args: &LogArgs, place: &str) -> Result<(), Error> {
    let Some(path) = &args.log_file else {
        return Ok(());
    };
    let opened = match at_end(path, OpenOptions::new().append(true)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let directory = path
                .parent()
                .filter(|parent| !parent.as_os_str().is_empty())
                .unwrap_or(Path::new("."));
            access(directory, Access::WRITE_OK | Access::EXEC_OK).map_err(io::Error::from)
        }
        opened => opened.map(drop),
    };
    opened.map_err(Error::io(opening(path, place)))
}

/// Each line is one write, so that lines of several processes in one file do not mix.
fn open(args: &LogArgs, place: &str) -> Result<Output, Error> {
    let Some(path) = &args.log_file else {
        return Output::inherited(io::stderr().as_fd(), MAX_PENDING)
            .map_err(Error::io("log to stderr"));
    };
    at_end(path, OpenOptions::new().append(true).create(true))
        .and_then(|file| Output::opened(file, MAX_PENDING))
        .map_err(Error::io(opening(path, place)))
}

/// A FIFO without a reader is an error, because it may never get one: fifo(7).
fn at_end(path: &Path, options: &mut OpenOptions) -> io::Result<File> {
    match options.custom_flags(libc::O_NONBLOCK).open(path) {
        Err(error)
            if error.raw_os_error() == Some(libc::ENXIO)
                && path.metadata()?.file_type().is_fifo() =>
        {
            Err(io::Error::other("this FIFO has no reader"))
        }
        opened => opened,
    }
}

fn opening(path: &Path, place: &str) -> String {
    format!("open the log file {} ({place})", path.display())
}

fn filter(level: LogLevel) -> LevelFilter {
    match level {
        LogLevel::Off => LevelFilter::Off,
        LogLevel::Error => LevelFilter::Error,
        LogLevel::Warn => LevelFilter::Warn,
        LogLevel::Info => LevelFilter::Info,
        LogLevel::Debug => LevelFilter::Debug,
        LogLevel::Trace => LevelFilter::Trace,
    }
}
