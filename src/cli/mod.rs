//! The binary `heartline`, as a library function: arguments in, an exit code out.

mod admin;
mod admin_client;
mod apps;
mod args;
mod bench;
mod connect;
mod humanize;
mod logging;
mod manual;
mod output;
mod serve;
mod status;
mod top;
mod values;

use std::io::Write;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::error::Error;

/// Holds very many long-lived TCP connections on one thread, knows within a stated bound which are
/// dead, and comes back.
#[derive(Parser)]
#[command(name = "heartline", version, max_term_width = 110)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Hold the lines: listen, answer heartbeats, find the dead, run an application
    Serve(serve::Options),
    /// Hold a line to a server: stdin lines out, messages to stdout, status to stderr
    Connect(connect::ConnectArgs),
    /// Say how a server is, once: asks its admin endpoint (serve --admin)
    Status(status::StatusArgs),
    /// Watch a server live in the terminal: figures, lines, closes; send messages, kick lines
    Top(top::TopArgs),
    /// Measure a server, heartline or another: connections held, throughput, latency, memory, CPU,
    /// evictions
    Bench(bench::BenchArgs),
    /// Print completions for a shell
    Completions(manual::CompletionsArgs),
    /// Print the manual page, or write all of them
    Man(manual::ManArgs),
}

/// Runs the subcommand that the process's arguments name, and returns its exit code: 2 for wrong
/// usage or a configuration that contradicts itself, with a message on stderr that names the flag;
/// 1 for other errors.
pub fn run() -> ExitCode {
    // It reads its flags together with environment and file.
    if std::env::args_os()
        .nth(1)
        .is_some_and(|subcommand| subcommand == "serve")
    {
        return exit_code(serve::run());
    }
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return exit_code(explain(&error)),
    };
    let result = match cli.command {
        Command::Serve(_) => serve::run(),
        Command::Connect(args) => connect::run(args),
        Command::Status(args) => status::run(args),
        Command::Top(args) => top::run(args),
        Command::Bench(args) => bench::run(args),
        Command::Completions(args) => manual::completions(&args),
        Command::Man(args) => manual::man(&args),
    };
    exit_code(result)
}

fn exit_code(result: Result<ExitCode, Error>) -> ExitCode {
    logging::finish();
    result.unwrap_or_else(|error| {
        status(&describe(&error));
        ExitCode::from(if matches!(error, Error::Config(_)) {
            2
        } else {
            1
        })
    })
}

/// Prints clap's own message: to stderr for wrong usage, to stdout for `--help` and `--version`.
pub(crate) fn explain(error: &clap::Error) -> Result<ExitCode, Error> {
    let printed = error.print().and_then(|()| std::io::stdout().flush());
    if error.use_stderr() {
        // The exit code is 2 even if stderr is closed.
        return Ok(ExitCode::from(2));
    }
    to_stdout(printed).map(|()| ExitCode::SUCCESS)
}

/// Prints the output of a command. `EPIPE` is not an error (`| head`); other write errors are.
pub(crate) fn print(text: &[u8]) -> Result<(), Error> {
    let mut stdout = std::io::stdout().lock();
    to_stdout(stdout.write_all(text).and_then(|()| stdout.flush()))
}

fn to_stdout(printed: std::io::Result<()>) -> Result<(), Error> {
    match printed {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        printed => printed.map_err(Error::io("write to stdout")),
    }
}

/// A sentence for the person at the terminal. A stderr that is closed is no reason to fail.
pub(crate) fn status(sentence: &str) {
    let _ = writeln!(std::io::stderr(), "heartline: {sentence}");
}

fn describe(error: &Error) -> String {
    match error {
        Error::Config(error) => format!(
            "{}: {}",
            flag(&error.field.replace('_', "-")),
            error.problem
        ),
        error => error.to_string(),
    }
}

/// How messages name the flag of a key.
fn flag(key: &str) -> String {
    if key == "addr" {
        "ADDR".into()
    } else {
        format!("--{key}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ConfigError;
    use clap::CommandFactory;

    #[test]
    fn the_arguments_are_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_configuration_error_names_the_flag() {
        let error = Error::from(ConfigError::new("max_retry_delay", "too short"));
        assert_eq!(describe(&error), "--max-retry-delay: too short");
        assert_eq!(
            describe(&Error::from(ConfigError::new("addr", "no port"))),
            "ADDR: no port"
        );
    }
}
