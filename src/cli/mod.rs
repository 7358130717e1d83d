//! The binary `heartline`, as a library function: arguments in, an exit code out.

mod manual;

use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

use crate::console::{describe, explain, notice};
use crate::error::Error;
use crate::{bench, connect, logging, serve, settings, status, tokens, top};

/// Holds very many long-lived TCP connections on one thread, and closes dead peers within a stated
/// time.
#[derive(Parser)]
#[command(name = "heartline", version, max_term_width = 110)]
struct Cli {
    #[command(subcommand)]
    command: TopLevelCommand,
}

#[derive(Subcommand)]
enum TopLevelCommand {
    /// Hold connections: listen, answer heartbeats, close dead peers, run an application
    Serve(settings::Options),
    /// Hold a connection to a server: send lines of stdin, print messages, status on stderr
    Connect(connect::ConnectArgs),
    /// Print the state of a server once, from its admin endpoint (serve --admin)
    Status(status::StatusArgs),
    /// Watch a server live in the terminal: figures, connections, closes; send messages, close
    /// connections
    Top(top::TopArgs),
    /// Measure a server, heartline or another: connections held, throughput, latency, memory, CPU,
    /// evictions
    Bench(bench::BenchArgs),
    /// Make, list and remove the tokens with which connections prove their names (serve --tokens)
    Token(tokens::TokenArgs),
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
        return exit_code(serve::run(Cli::command()));
    }
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return exit_code(explain(&error)),
    };
    let result = match cli.command {
        TopLevelCommand::Serve(_) => serve::run(Cli::command()),
        TopLevelCommand::Connect(args) => connect::run(args),
        TopLevelCommand::Status(args) => status::run(args),
        TopLevelCommand::Top(args) => top::run(args),
        TopLevelCommand::Bench(args) => bench::run(args),
        TopLevelCommand::Token(args) => tokens::run(args),
        TopLevelCommand::Completions(args) => manual::completions(&args),
        TopLevelCommand::Man(args) => manual::man(&args),
    };
    exit_code(result)
}

fn exit_code(result: Result<ExitCode, Error>) -> ExitCode {
    logging::finish();
    result.unwrap_or_else(|error| {
        notice(&describe(&error));
        ExitCode::from(if matches!(error, Error::Config(_)) {
            2
        } else {
            1
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clap_definition_is_consistent() {
        Cli::command().debug_assert();
    }
}
