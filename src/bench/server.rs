//! The harness's own server, used if no address is given: `heartline serve` in child processes.

use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::process::{Child, ChildStdin, ExitCode, Stdio};
use std::thread;

use clap::Args;

use crate::error::Error;
use crate::serve;
use crate::settings::ServeArgs;

/// Several processes listen on one address if one cannot hold all connections; the kernel spreads
/// them. Ends with its value.
pub(super) struct OwnServer {
    children: Vec<Child>,
    /// The children run for as long as these are open.
    _alive: Vec<ChildStdin>,
    pub(super) addr: SocketAddr,
}

impl OwnServer {
    /// Starts this many processes of `heartline serve` with `options`, on a free port of 127.0.0.1.
    pub(super) fn start(processes: u32, options: &[String]) -> Result<Self, Error> {
        let mut server = OwnServer {
            children: Vec::new(),
            _alive: Vec::new(),
            addr: SocketAddr::from(([127, 0, 0, 1], 0)),
        };
        for _ in 0..processes {
            server
                .start_one(processes > 1, options)
                .map_err(Error::io("start a server"))?;
        }
        Ok(server)
    }

    fn start_one(&mut self, reuse_port: bool, options: &[String]) -> std::io::Result<()> {
        let mut command = super::workers::own_command("server")?;
        command.arg(self.addr.to_string()).args(options);
        if reuse_port && !has_flag(options, "--reuse-port") {
            command.arg("--reuse-port");
        }
        if !has_flag(options, "--log-level") {
            command.args(["--log-level", "error"]);
        }
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        self._alive.extend(child.stdin.take());
        let stdout = child.stdout.take();
        self.children.push(child);
        let mut line = String::new();
        // Longer than any address.
        BufReader::new(
            stdout
                .into_iter()
                .next()
                .ok_or(std::io::ErrorKind::BrokenPipe)?
                .take(200),
        )
        .read_line(&mut line)?;
        let addr = line
            .trim_end()
            .strip_prefix("listening ")
            .and_then(|addr| addr.parse().ok());
        self.addr = addr.ok_or_else(|| std::io::Error::other("it did not print its address"))?;
        Ok(())
    }

    pub(super) fn pids(&self) -> Vec<u32> {
        self.children.iter().map(Child::id).collect()
    }
}

impl Drop for OwnServer {
    fn drop(&mut self) {
        for child in &mut self.children {
            // It needs no orderly end, and may have ended by itself.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Whether `options` set `flag`, as `--flag value` or `--flag=value`.
pub(super) fn has_flag(options: &[String], flag: &str) -> bool {
    options.iter().any(|option| {
        option
            .strip_prefix(flag)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('='))
    })
}

/// Options of `heartline bench server`.
#[derive(Args, Debug)]
pub(super) struct ServerArgs {
    #[command(flatten)]
    serve: ServeArgs,
}

/// `heartline bench server`: `heartline serve` that ends when its stdin does, so that it does not
/// outlive a harness that was killed.
pub(super) fn run(args: ServerArgs) -> Result<ExitCode, Error> {
    let watch = || {
        let _ = std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink());
        std::process::exit(0);
    };
    thread::Builder::new()
        .name("stdin".into())
        .spawn(watch)
        .map_err(Error::io("start a thread"))?;
    serve::run_with(args.serve)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_recognised_in_both_spellings() {
        let options = ["--heartbeat=1s", "--missed", "2"].map(String::from);
        assert!(has_flag(&options, "--heartbeat") && has_flag(&options, "--missed"));
        assert!(!has_flag(&options, "--miss") && !has_flag(&options, "--tick"));
    }
}
