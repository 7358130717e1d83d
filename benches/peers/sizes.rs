//! How large the binaries are.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::child::{Failure, run};
use crate::peers::cargo;
use crate::scenario::{Bench, Measured};

/// The library alone, as a small box would carry it: profile `tiny` in Cargo.toml.
pub fn build_tiny_example(dir: &Path) -> Result<PathBuf, String> {
    let target = dir.join("tiny");
    let mut cargo = Command::new(cargo());
    cargo.current_dir(env!("CARGO_MANIFEST_DIR")).args([
        "build",
        "--example",
        "echo",
        "--no-default-features",
        "--profile",
        "tiny",
    ]);
    run(cargo.arg("--target-dir").arg(&target))?;
    Ok(target.join("tiny/examples/echo"))
}

pub fn measure(bench: &Bench) -> Result<Measured, Failure> {
    let stripped = bench.dir.join("heartline-stripped");
    let mut strip = Command::new("strip");
    run(strip
        .arg("-o")
        .arg(&stripped)
        .arg(env!("CARGO_BIN_EXE_heartline")))
    .map_err(|problem| format!("{problem} (Debian package: binutils)"))?;
    let tiny = bench
        .tiny_example
        .clone()
        .unwrap_or_else(|| Err("was not built".to_string()))?;
    Ok(Measured {
        figures: vec![megabytes(&stripped)?, megabytes(&tiny)?],
        remarks: Vec::new(),
    })
}

fn megabytes(path: &Path) -> Result<f64, String> {
    let file = fs::metadata(path).map_err(|error| format!("{}: {error}", path.display()))?;
    Ok(file.len() as f64 / 1e6)
}
