//! Checks the settings before the server listens; `heartline serve --check`.

use std::fmt::Write;
use std::net::SocketAddr;

use super::proofs::Proofs;
use crate::admin::server::Admin;
use crate::console::{notice, print};
use crate::error::{ConfigError, Error};
use crate::logging;
use crate::net::{self, HostPort};
use crate::server::{Descriptors, check_addrs, covers};
use crate::settings::{Setting, Settings, Value, ValueOrigin};

const PROTECTS_NOTHING: &str = "has no effect without an admin endpoint; set --admin as well";

/// The resolved addresses of each listen argument.
pub(super) type Names = Vec<Vec<SocketAddr>>;

/// Returns every error that can be found without listening or creating a file. `listens` is `false`
/// if sockets were passed, which take the place of the addresses.
pub(super) fn examine(settings: &Settings, listens: bool) -> Result<Names, Vec<Error>> {
    let args = settings.args();
    let config = args.config();
    let mut errors: Vec<Error> = config.problems().into_iter().map(Error::from).collect();
    let to_resolve: &[String] = if listens { &args.addrs } else { &[] };
    let names = resolve(to_resolve).unwrap_or_else(|problems| {
        errors.extend(problems);
        Vec::new()
    });
    let addrs = names.concat();
    if !names.is_empty() && !config.reuse_port {
        errors.extend(check_addrs(&addrs).err().map(Error::from));
    }
    if args.admin.protects_nothing() && !has_shared_token(settings) {
        errors.push(ConfigError::new("admin_token_file", PROTECTS_NOTHING).into());
    }
    errors.extend(Proofs::read(&args.login).err());
    match Admin::check(&args.admin) {
        Ok(admin) => {
            let is_taken = |admin: &SocketAddr| {
                admin.port() != 0
                    && addrs
                        .iter()
                        .any(|addr| addr == admin || covers(addr, admin))
            };
            if let Some(addr) = admin.first().filter(|_| admin.iter().all(is_taken)) {
                let problem = format!("{addr} is already an address for connections");
                errors.push(ConfigError::new("admin", problem).against(&["addr"]).into());
            }
        }
        Err(error) => errors.push(error),
    }
    // A start opens the log at once. A FIFO must not be opened and closed before: its reader would
    // take that for the end.
    if settings.options.check {
        errors.extend(logging::check(&args.log, &settings.place("log-file")).err());
    }
    if errors.is_empty() {
        Ok(names)
    } else {
        Err(errors)
    }
}

fn resolve(addrs: &[String]) -> Result<Names, Vec<Error>> {
    let (mut names, mut errors) = (Vec::new(), Vec::new());
    for addr in addrs {
        match HostPort::parse(addr).map(|parsed| parsed.resolve()) {
            Ok(Ok(found)) => names.push(found),
            // A name server that is down is no fault of the settings: a later start may succeed.
            Ok(Err(error)) => errors.push(Error::io(format!("look up {addr}"))(error)),
            Err(error) => errors.push(ConfigError::new("addr", error.to_string()).into()),
        }
    }
    if errors.is_empty() {
        Ok(names)
    } else {
        Err(errors)
    }
}

/// Servers may share an environment, and some of them may have no endpoint.
fn has_shared_token(settings: &Settings) -> bool {
    let token = settings.find("admin-token-file");
    token.is_some_and(|token| matches!(token.origin, ValueOrigin::Environment(_)))
}

/// Warnings about legal settings that are probably not meant.
pub(super) fn notes(settings: &Settings) -> Vec<String> {
    let args = settings.args();
    let mut notes = args.config().notes();
    if args.admin.protects_nothing() {
        notes.push(format!("admin-token-file: {PROTECTS_NOTHING}"));
    }
    notes.extend(settings.warnings.iter().cloned());
    notes
}

/// Prints the settings in force as a `--config` file, and warnings to stderr.
pub(super) fn run(settings: &Settings) -> Result<(), Error> {
    let args = settings.args();
    for note in notes(settings) {
        notice(&note);
    }
    let mut descriptors = Descriptors::share(net::raise_descriptor_limit());
    descriptors.reserve(Admin::descriptors(&args.admin));
    if let Some(shortage) = descriptors.shortage(&args.config()) {
        notice(&shortage.to_string());
    }
    print(to_toml(&settings.effective).as_bytes())
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

/// Whether TOML reads the value back as it is written: not so for `007`.
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
    fn checked_strings_round_trip_through_toml() {
        for text in ["5s", "a \"quoted\" \\ path", "tab\tand bell\u{7}", "ümläut"] {
            let file = format!("goodbye = {}", quoted(text));
            let table = toml::de::DeTable::parse(&file).expect("valid TOML");
            assert_eq!(table.get_ref()["goodbye"].get_ref().as_str(), Some(text));
        }
    }
}
