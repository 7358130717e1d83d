//! Logs: one line per event, `key=value`, to stderr or to a file.

use std::fs::OpenOptions;
use std::io::{self, LineWriter, Write};

use log::LevelFilter;
use simplelog::{ConfigBuilder, LevelPadding, WriteLogger};

use super::args::{LogArgs, LogLevel};
use crate::error::Error;

/// Starts logging as the flags say, at `default` if they say nothing. Fails if the file cannot be opened.
///
/// A second call has no effect: the first logger of a process stays.
pub(crate) fn start(args: &LogArgs, default: LogLevel) -> Result<(), Error> {
    let level = filter(args.log_level.unwrap_or(default));
    // Each line is one write, so that lines of several processes in one file do not mix.
    let sink: Box<dyn Write + Send> = match &args.log_file {
        None => Box::new(LineWriter::new(io::stderr())),
        Some(path) => {
            let doing = format!("open the log file {}", path.display());
            Box::new(LineWriter::new(OpenOptions::new().append(true).create(true).open(path).map_err(Error::io(doing))?))
        }
    };
    // `2026-01-31T12:00:00.123456789Z [INFO] message`: the time in UTC, and neither thread nor module, since there is one of each.
    let config = ConfigBuilder::new()
        .set_time_format_rfc3339()
        .set_time_level(LevelFilter::Error)
        .set_level_padding(LevelPadding::Off)
        .set_thread_level(LevelFilter::Off)
        .set_target_level(LevelFilter::Off)
        .set_location_level(LevelFilter::Off)
        .build();
    let _ = WriteLogger::init(level, config, sink);
    Ok(())
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
