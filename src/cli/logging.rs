//! Logs: one line per event, `key=value`, to stderr or to a file.

use std::fs::{File, OpenOptions};
use std::io::{self, LineWriter, Write};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use log::LevelFilter;
use rustix::fs::{Access, OFlags, access, fcntl_getfl, fcntl_setfl};
use simplelog::{ConfigBuilder, LevelPadding, WriteLogger};

use super::args::{LogArgs, LogLevel};
use crate::error::Error;

/// Where the lines go. It can be another file than at the start: see [`prepare`].
static SINK: OnceLock<Arc<Mutex<Box<dyn Write + Send>>>> = OnceLock::new();

struct Sink(Arc<Mutex<Box<dyn Write + Send>>>);

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .flush()
    }
}

/// Starts logging as the flags say. Fails if the file cannot be opened, which comes from `place`.
///
/// A second call has no effect: the first logger of a process stays.
pub(crate) fn start(args: &LogArgs, place: &str) -> Result<(), Error> {
    let sink = Arc::clone(SINK.get_or_init(|| Arc::new(Mutex::new(Box::new(io::sink())))));
    // `2026-01-31T12:00:00.123456789Z [INFO] message`: the time in UTC, and neither thread nor module, since there is one of each.
    let config = ConfigBuilder::new()
        .set_time_format_rfc3339()
        .set_time_level(LevelFilter::Error)
        .set_level_padding(LevelPadding::Off)
        .set_thread_level(LevelFilter::Off)
        .set_target_level(LevelFilter::Off)
        .set_location_level(LevelFilter::Off)
        .build();
    // It lets everything through: the level that counts is the one that can be set anew.
    let _ = WriteLogger::init(LevelFilter::Trace, config, Sink(sink));
    prepare(args, place)?.take_effect();
    Ok(())
}

/// A log that is open, and not yet written to.
pub(crate) struct Prepared {
    sink: Box<dyn Write + Send>,
    level: LevelFilter,
}

/// Makes ready to go on with the level and the file that the flags say. A file of the same name is opened anew, so that the old one can have been renamed. If
/// it cannot be opened, all stays as it was.
pub(crate) fn prepare(args: &LogArgs, place: &str) -> Result<Prepared, Error> {
    Ok(Prepared {
        sink: open(args, place)?,
        level: filter(args.log_level),
    })
}

impl Prepared {
    /// From now on this is the log.
    pub(crate) fn take_effect(self) {
        if let Some(sink) = SINK.get() {
            *sink.lock().unwrap_or_else(PoisonError::into_inner) = self.sink;
        }
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
fn open(args: &LogArgs, place: &str) -> Result<Box<dyn Write + Send>, Error> {
    let Some(path) = &args.log_file else {
        return Ok(Box::new(LineWriter::new(io::stderr())));
    };
    let file = at_end(path, OpenOptions::new().append(true).create(true))
        .map_err(Error::io(opening(path, place)))?;
    Ok(Box::new(LineWriter::new(file)))
}

/// A FIFO that nobody reads is an error, as nobody says when that ends: fifo(7).
fn at_end(path: &Path, options: &mut OpenOptions) -> io::Result<File> {
    let file = match options.custom_flags(libc::O_NONBLOCK).open(path) {
        Err(error)
            if error.raw_os_error() == Some(libc::ENXIO)
                && path.metadata()?.file_type().is_fifo() =>
        {
            return Err(io::Error::other("nobody reads from this FIFO"));
        }
        opened => opened?,
    };
    // Writing waits for a slow reader, as it does on stderr.
    fcntl_setfl(&file, fcntl_getfl(&file)? - OFlags::NONBLOCK)?;
    Ok(file)
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
