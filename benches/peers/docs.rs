//! Puts results where people read them.

use std::fs;
use std::path::Path;

use crate::child::{self, Failure};
use crate::curves;
use crate::plots;
use crate::report::Report;
use crate::table;

const BEGIN: &str = "<!-- results: begin -->\n";
const END: &str = "<!-- results: end -->\n";

/// A full run's into docs/benchmarks.md, between the markers, and its plots into docs/benchmarks;
/// any other's beside the JSON in `dir`, for looking at.
pub fn write(report: &Report, dir: &Path, full: bool) -> Result<(), Failure> {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs");
    let base = if full { docs.as_path() } else { dir };
    let plots_dir = base.join("benchmarks");
    // Plots of removed peers and scenarios would look like plots of this run.
    let _ = fs::remove_dir_all(&plots_dir);
    fs::create_dir_all(&plots_dir).map_err(|error| format!("{}: {error}", plots_dir.display()))?;
    let mut plots = plots::draw(report, &plots_dir)?;
    plots.extend(curves::draw(report, &plots_dir)?);
    let results = table::markdown(report, &plots);

    let page = base.join("benchmarks.md");
    let text = if full {
        between_markers(
            &fs::read_to_string(&page).map_err(|error| format!("{}: {error}", page.display()))?,
            &results,
        )?
    } else {
        results
    };
    child::write(&page, &text)?;
    println!("written: {}, {}/*.svg", page.display(), plots_dir.display());
    if !full {
        println!("docs/benchmarks.md is as it was: only a full run goes there");
    }
    Ok(())
}

fn between_markers(page: &str, results: &str) -> Result<String, Failure> {
    let parts = page
        .split_once(BEGIN)
        .and_then(|(before, rest)| Some((before, rest.split_once(END)?.1)));
    let (before, after) =
        parts.ok_or_else(|| "docs/benchmarks.md has lost its markers".to_string())?;
    Ok(format!("{before}{BEGIN}\n{results}\n{END}{after}"))
}
