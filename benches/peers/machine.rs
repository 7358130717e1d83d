//! The machine of the measurement.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde::Serialize;

use crate::child::run;
use crate::proc::figure;

#[derive(Serialize)]
pub struct Machine {
    pub kernel: String,
    pub cpu: String,
    pub cores: usize,
    pub memory_bytes: f64,
}

impl Machine {
    pub fn read_proc() -> Self {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let cpus = read("/proc/cpuinfo");
        let named = cpus.lines().find_map(|line| {
            Some(
                line.strip_prefix("model name")?
                    .split_once(':')?
                    .1
                    .trim()
                    .to_string(),
            )
        });
        Machine {
            kernel: format!("Linux {}", read("/proc/sys/kernel/osrelease").trim()),
            cpu: named.unwrap_or_else(|| std::env::consts::ARCH.to_string()),
            // Not what this process may use, which is one.
            cores: cpus
                .lines()
                .filter(|line| line.starts_with("processor"))
                .count(),
            memory_bytes: figure(&read("/proc/meminfo"), "MemTotal").unwrap_or(0.0) * 1024.0,
        }
    }
}

/// The commit that was built, if git knows it.
pub fn revision() -> Option<String> {
    let mut git = Command::new("git");
    git.current_dir(Path::new(env!("CARGO_MANIFEST_DIR")))
        .args(["describe", "--always", "--dirty", "--exclude", "*"]);
    run(&mut git).ok().map(|text| text.trim().to_string())
}
