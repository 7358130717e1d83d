//! Child processes that end with this one, each pinned to a core.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{self, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use signal_hook::consts::{SIGINT, SIGTERM};

pub const SERVER_CORE: usize = 0;
/// The higher of the two.
pub const LOAD_CORE: usize = 1;

/// How often a condition is polled.
const LOOK: Duration = Duration::from_millis(10);

/// Why there is no result.
#[derive(Debug)]
pub enum Failure {
    /// By Ctrl-C.
    Interrupted,
    Failed(String),
}

impl From<String> for Failure {
    fn from(problem: String) -> Self {
        Failure::Failed(problem)
    }
}

static INTERRUPTED: LazyLock<Arc<AtomicBool>> = LazyLock::new(Arc::default);

/// From here on Ctrl-C ends every wait, so that all guards are dropped, and with them all
/// processes.
pub fn obey_interrupts() -> Result<(), Failure> {
    for signal in [SIGINT, SIGTERM] {
        signal_hook::flag::register(signal, INTERRUPTED.clone())
            .map_err(|error| format!("watch for signals: {error}"))?;
    }
    Ok(())
}

pub fn check_interrupt() -> Result<(), Failure> {
    if INTERRUPTED.load(Ordering::Relaxed) {
        Err(Failure::Interrupted)
    } else {
        Ok(())
    }
}

pub fn pause(length: Duration) -> Result<(), Failure> {
    let until = Instant::now() + length;
    while let Some(left) = until.checked_duration_since(Instant::now()) {
        check_interrupt()?;
        thread::sleep(left.min(LOOK));
    }
    check_interrupt()
}

/// A process that is killed, by its id, when this is dropped.
pub struct Child(process::Child);

impl Child {
    /// Starts `program` on `core`. Its process group is its own, so that Ctrl-C does not reach it
    /// before us; and should we be killed, the kernel kills it (setpriv, which like taskset
    /// replaces itself, so the id stays).
    pub fn start(
        core: usize,
        program: &Path,
        set: impl FnOnce(&mut Command),
    ) -> Result<Self, Failure> {
        let mut command = Command::new("setpriv");
        command
            .args(["--pdeathsig", "KILL", "taskset", "-c", &core.to_string()])
            .arg(program);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0);
        set(&mut command);
        let started = command.spawn().map_err(|error| {
            format!(
                "start {}: {error} (setpriv and taskset are in util-linux)",
                program.display()
            )
        });
        Ok(Child(started?))
    }

    pub fn pid(&self) -> u32 {
        self.0.id()
    }

    pub fn has_ended(&mut self) -> bool {
        !matches!(self.0.try_wait(), Ok(None))
    }

    /// Sends SIGTERM.
    pub fn terminate(&self) -> Result<(), Failure> {
        let pid = i32::try_from(self.0.id())
            .ok()
            .and_then(Pid::from_raw)
            .ok_or_else(|| "no such process id".to_string())?;
        Ok(kill_process(pid, Signal::TERM)
            .map_err(|error| format!("terminate {}: {error}", self.0.id()))?)
    }

    /// Waits for its end, with a limit.
    pub fn wait(mut self, limit: Duration) -> Result<ExitStatus, Failure> {
        let until = Instant::now() + limit;
        loop {
            match self.0.try_wait() {
                Ok(Some(status)) => return Ok(status),
                Ok(None) if Instant::now() > until => {
                    return Err(Failure::Failed(format!(
                        "did not end within {} s",
                        limit.as_secs()
                    )));
                }
                Ok(None) => pause(LOOK)?,
                Err(error) => return Err(Failure::Failed(error.to_string())),
            }
        }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Pins this process and its later children to one core.
pub fn pin_self(core: usize) -> Result<(), Failure> {
    if thread::available_parallelism().map_or(1, usize::from) <= LOAD_CORE {
        return Err(Failure::Failed(
            "takes two cores: one for the server, one for the load".to_string(),
        ));
    }
    let pid = process::id().to_string();
    run(Command::new("taskset").args(["-a", "-cp", &core.to_string(), &pid]))
        .map_err(|problem| format!("{problem} (taskset is in util-linux)"))?;
    Ok(())
}

/// Runs to the end, and returns what came to stdout.
pub fn run(command: &mut Command) -> Result<String, String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("{name}: {error}"))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(format!(
        "{name}: {}: {}",
        output.status,
        last_lines(&String::from_utf8_lossy(&output.stderr))
    ))
}

/// The end of a log, as one line: what went wrong is there.
pub fn last_lines(text: &str) -> String {
    let lines: Vec<&str> = text
        .lines()
        .filter(|line| !line.trim().is_empty())
        .collect();
    lines[lines.len().saturating_sub(3)..].join(" | ")
}

pub fn write(path: &Path, text: &str) -> Result<(), Failure> {
    Ok(fs::write(path, text).map_err(|error| format!("write {}: {error}", path.display()))?)
}
