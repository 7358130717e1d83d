//! `heartline serve --check`: what a server would do, without doing it.

use std::fmt::Write;

use super::settings::{Setting, Settings, Value};
use crate::cli::admin::Admin;
use crate::cli::{logging, status};
use crate::error::Error;

/// Fails as a start would, but for what only binding an address or making the log can tell. Otherwise prints the settings, as a file that could be
/// given with `--config`, and what is legal but probably not meant, to stderr.
pub(super) fn run(settings: &Settings) -> Result<(), Error> {
    let args = settings.args();
    let config = args.config();
    config.check()?;
    super::resolve(&args.addrs)?;
    Admin::check(&args.admin)?;
    logging::check(&args.log, &settings.place("log-file"))?;
    for note in config.notes().iter().chain(&settings.warnings) {
        status(note);
    }
    let text = to_toml(&settings.effective);
    // Who closes stdout does not want to know.
    let _ = std::io::Write::write_all(&mut std::io::stdout(), text.as_bytes());
    Ok(())
}

fn to_toml(settings: &[Setting]) -> String {
    let mut text = String::new();
    for Setting { key, value, origin } in settings {
        let origin = origin.kind();
        // Writing to a string does not fail.
        let _ = match written(value) {
            Some(value) => writeln!(text, "{key} = {value}  # {origin}"),
            None => writeln!(text, "# {key} is not set"),
        };
    }
    text
}

fn written(value: &Value) -> Option<String> {
    match value {
        Value::Switch(on) => Some(on.to_string()),
        Value::One(value) => value.as_deref().map(|text| {
            if is_number(text) {
                text.to_owned()
            } else {
                quoted(text)
            }
        }),
        Value::Many(values) => Some(format!(
            "[{}]",
            values
                .iter()
                .map(|value| quoted(value))
                .collect::<Vec<_>>()
                .join(", ")
        )),
    }
}

/// Whether it comes back from a file as it is written here: `007` would not.
fn is_number(text: &str) -> bool {
    text.parse::<u32>()
        .is_ok_and(|number| number.to_string() == text)
}

/// A basic string of TOML.
fn quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for char in text.chars() {
        let _ = match char {
            '"' | '\\' => write!(quoted, "\\{char}"),
            char if char.is_control() => write!(quoted, "\\u{:04X}", u32::from(char)),
            char => write!(quoted, "{char}"),
        };
    }
    quoted + "\""
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_come_back_from_a_file_as_they_were() {
        for text in ["5s", "a \"quoted\" \\ path", "tab\tand bell\u{7}", "ümläut"] {
            let file = format!("goodbye = {}", quoted(text));
            let table = toml::de::DeTable::parse(&file).expect("valid TOML");
            assert_eq!(table.get_ref()["goodbye"].get_ref().as_str(), Some(text));
        }
    }
}
