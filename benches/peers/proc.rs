//! The cost of a process, from /proc.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::child::{Failure, pause};

/// A server is at rest when it used less of a core than this between two samples; the longest wait
/// for that.
const AT_REST: f64 = 0.05;
const REST_LOOK: Duration = Duration::from_millis(150);
const MAX_SAMPLE_PAUSE: Duration = Duration::from_secs(5);

/// Resident memory in bytes, counted page by page.
pub fn rss(pid: u32) -> Result<f64, Failure> {
    let path = format!("/proc/{pid}/smaps_rollup");
    let text = fs::read_to_string(&path).map_err(|error| format!("{path}: {error}"))?;
    Ok(figure(&text, "Rss").ok_or_else(|| format!("{path}: no Rss in it"))? * 1024.0)
}

/// How often its threads have gone to sleep by themselves, in all: each time somebody had to wake
/// them.
pub fn sleeps(pid: u32) -> Result<f64, Failure> {
    let count = |task: PathBuf| {
        figure(
            &fs::read_to_string(task.join("status")).ok()?,
            "voluntary_ctxt_switches",
        )
    };
    Ok(tasks(pid)?.into_iter().filter_map(count).sum())
}

pub fn rest(pid: u32) -> Result<(), Failure> {
    let until = Instant::now() + MAX_SAMPLE_PAUSE;
    let mut before = cpu_ns(pid)?;
    loop {
        pause(REST_LOOK)?;
        let now = cpu_ns(pid)?;
        if now - before <= AT_REST * REST_LOOK.as_nanos() as f64 || Instant::now() >= until {
            return Ok(());
        }
        before = now;
    }
}

/// From the scheduler's accounting. /proc/PID/schedstat covers the first thread alone.
pub fn cpu_ns(pid: u32) -> Result<f64, Failure> {
    let time = |task: PathBuf| {
        fs::read_to_string(task.join("schedstat"))
            .ok()?
            .split_ascii_whitespace()
            .next()?
            .parse::<f64>()
            .ok()
    };
    Ok(tasks(pid)?.into_iter().filter_map(time).sum())
}

fn tasks(pid: u32) -> Result<Vec<PathBuf>, Failure> {
    let path = format!("/proc/{pid}/task");
    let dir = fs::read_dir(&path).map_err(|error| format!("{path}: {error}"))?;
    Ok(dir.filter_map(|task| Some(task.ok()?.path())).collect())
}

/// The figure in a line `Name:  123 ...`.
pub fn figure(text: &str, name: &str) -> Option<f64> {
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}
