//! How it is going, on stderr: a bar on a terminal, a line per second elsewhere.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::plan::ProgressCounts;
use crate::console::notice;

/// Time between two lines.
const LINE_S: f64 = 1.0;

pub(super) struct Display {
    /// `None`: stderr is not a terminal.
    bar: Option<ProgressBar>,
    stage: String,
    length: f64,
    next_line_s: f64,
}

impl Display {
    pub(super) fn new() -> Self {
        let bar = ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::stderr());
        // The template is a constant that a test has tried.
        let style =
            ProgressStyle::with_template(TEMPLATE).unwrap_or_else(|_| ProgressStyle::default_bar());
        bar.set_style(style.progress_chars("█▉▊▋▌▍▎▏ "));
        let bar = (!bar.is_hidden()).then_some(bar);
        Display {
            bar,
            stage: String::new(),
            length: 0.0,
            next_line_s: LINE_S,
        }
    }

    /// The next part begins; it is `length` long, in connections or seconds.
    pub(super) fn stage(&mut self, stage: &str, length: f64) {
        (self.stage, self.length) = (stage.to_string(), length);
        if let Some(bar) = &self.bar {
            bar.set_prefix(self.stage.clone());
            bar.set_length((length * PER_UNIT) as u64);
            bar.set_position(0);
        }
    }

    /// Shows the counts `at_s` seconds after the start; the measurement began at `began_s`.
    pub(super) fn show(
        &mut self,
        at_s: f64,
        began_s: Option<f64>,
        progress: &ProgressCounts,
        ended: u64,
    ) {
        let measuring_s = began_s.map(|began_s| (at_s - began_s).max(0.0));
        let words = words(progress, ended);
        match &self.bar {
            Some(bar) => {
                let position = measuring_s
                    .unwrap_or_else(|| f64::from(progress.dialled))
                    .min(self.length);
                bar.set_position((position * PER_UNIT) as u64);
                bar.set_message(words);
                bar.tick();
            }
            None if at_s >= self.next_line_s => {
                self.next_line_s = at_s + LINE_S;
                notice(&format!("{} {at_s:.0} s: {words}", self.stage));
            }
            None => {}
        }
    }

    pub(super) fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// Bars count in whole numbers.
const PER_UNIT: f64 = 100.0;
const TEMPLATE: &str = "{prefix:>10} {bar:30.cyan/black} {elapsed:>4} {wide_msg}";

fn words(progress: &ProgressCounts, ended: u64) -> String {
    let mut words = format!("{} open", progress.open);
    for (count, what) in [
        (u64::from(progress.failed), "failed"),
        (ended, "ended"),
        (progress.sent, "sent"),
        (progress.answered, "answered"),
    ] {
        if count > 0 {
            words.push_str(&format!(", {count} {what}"));
        }
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_template_is_valid() {
        assert!(ProgressStyle::with_template(TEMPLATE).is_ok());
    }

    #[test]
    fn progress_words_match_the_counts() {
        let progress = ProgressCounts {
            open: 5,
            sent: 3,
            ..ProgressCounts::default()
        };
        assert_eq!(words(&progress, 0), "5 open, 3 sent");
        assert_eq!(words(&progress, 2), "5 open, 2 ended, 3 sent");
    }
}
