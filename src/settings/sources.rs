//! Reads settings from the environment and from the file.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::Read;
use std::path::Path;

use clap::{Arg, ArgAction};
use toml::de::{DeTable, DeValue};

use super::value_origin::ValueOrigin;
use crate::error::Error;

/// Environment variables that mean settings begin with this.
pub(super) const PREFIX: &str = "HEARTLINE_";
/// Maximum size of the file.
const MAX_FILE_BYTES: u64 = 1024 * 1024;
/// Minimum similarity for "did you mean".
const LIKENESS: f64 = 0.8;

/// Environment variables whose names are UTF-8.
pub(super) type Variables = HashMap<String, OsString>;

/// A value as a flag has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Value {
    Switch(bool),
    One(Option<String>),
    Many(Vec<String>),
}

/// The value of one key in the environment or the file.
pub(super) struct LayeredValue {
    pub(super) value: Value,
    pub(super) origin: ValueOrigin,
}

/// A wrong setting; `text` begins with its place.
pub(super) struct Problem {
    pub(super) origin: ValueOrigin,
    pub(super) text: String,
}

/// The settings of one source.
#[derive(Default)]
pub(super) struct SettingsSource {
    pub(super) said: HashMap<String, LayeredValue>,
    pub(super) problems: Vec<Problem>,
}

impl SettingsSource {
    fn note(&mut self, key: &str, origin: ValueOrigin, value: Result<Value, String>) {
        match value {
            Ok(value) => {
                self.said
                    .insert(key.to_owned(), LayeredValue { value, origin });
            }
            Err(problem) => {
                let text = format!("{}: {problem}", origin.place(key));
                self.problems.push(Problem { origin, text });
            }
        }
    }
}

pub(super) fn key(arg: &Arg) -> &str {
    arg.get_long().unwrap_or("addr")
}

pub(super) fn is_list(arg: &Arg) -> bool {
    matches!(arg.get_action(), ArgAction::Append) || arg.is_positional()
}

/// A flag that may go without its value.
pub(crate) fn is_switch(arg: &Arg) -> bool {
    arg.get_num_args()
        .is_some_and(|number| number.min_values() == 0)
}

/// An environment variable that is set to something.
pub(super) fn set<'a>(variables: &'a Variables, name: &str) -> Option<&'a OsString> {
    variables.get(name).filter(|value| !value.is_empty())
}

fn variable(arg: &Arg) -> String {
    format!("{PREFIX}{}", key(arg).to_uppercase().replace('-', "_"))
}

pub(super) fn from_environment(known: &[&Arg], variables: &Variables) -> SettingsSource {
    let mut source = SettingsSource::default();
    for arg in known {
        let name = variable(arg);
        // A list can be empty. For other settings an empty variable counts as unset.
        let value = if is_list(arg) {
            variables.get(&name)
        } else {
            set(variables, &name)
        };
        if let Some(value) = value {
            let value = from_variable(arg, value);
            source.note(key(arg), ValueOrigin::Environment(name), value);
        }
    }
    source
}

fn from_variable(arg: &Arg, value: &OsString) -> Result<Value, String> {
    let Some(text) = value.to_str() else {
        return Err("not UTF-8".into());
    };
    if is_switch(arg) {
        return match text {
            "true" | "1" => Ok(Value::Switch(true)),
            "false" | "0" => Ok(Value::Switch(false)),
            _ => Err(format!("write true or false, not {text:?}")),
        };
    }
    if is_list(arg) {
        let parts = text.split(',').filter(|part| !part.is_empty());
        let parts = parts.map(|part| part.trim().to_owned());
        return Ok(Value::Many(parts.collect()));
    }
    Ok(Value::One(Some(text.to_owned())))
}

/// Warnings about variables that look like misspelled settings. Other commands have variables of
/// their own, so these are not errors.
pub(super) fn unknown_variables(known: &[&Arg], variables: &Variables) -> Vec<String> {
    let names: Vec<String> = known
        .iter()
        .map(|arg| variable(arg))
        .chain([format!("{PREFIX}CONFIG")])
        .collect();
    let mut unknown: Vec<&String> = variables
        .iter()
        .filter(|(name, value)| {
            name.starts_with(PREFIX) && !names.contains(name) && !is_service_link(name, value)
        })
        .map(|(name, _)| name)
        .collect();
    unknown.sort_unstable();
    let warning = |name: &String| {
        let names = names.iter().map(|name| &name[PREFIX.len()..]);
        let nearest = nearest(&name[PREFIX.len()..], names)?;
        let meant = format!("{PREFIX}{nearest}");
        Some(format!("{name} is not a setting; did you mean {meant}?"))
    };
    unknown.into_iter().filter_map(warning).collect()
}

/// Whether Kubernetes has set it for a service of this name (Kubernetes documentation, "Accessing
/// the Service": `HEARTLINE_SERVICE_HOST`, `HEARTLINE_PORT_7878_TCP_ADDR` and their like).
fn is_service_link(name: &str, value: &OsString) -> bool {
    let is_url = || {
        let text = value.to_str().and_then(|text| text.split_once("://"));
        text.is_some_and(|(scheme, _)| matches!(scheme, "tcp" | "udp" | "sctp"))
    };
    let is_part = || {
        ["_PROTO", "_PORT", "_ADDR"].iter().any(|part| {
            let stem = name.strip_suffix(part).unwrap_or_default();
            ["_TCP", "_UDP", "_SCTP"].iter().any(|p| stem.ends_with(p))
        })
    };
    name.ends_with("_SERVICE_HOST") || name.contains("_SERVICE_PORT") || is_url() || is_part()
}

/// Why the file cannot be used; both messages name it.
#[derive(Debug)]
pub(super) enum Unreadable {
    /// The system cannot read it now; a later start may succeed.
    Io(Error),
    /// The file is not a settings file.
    Wrong(String),
}

/// Reads the file. A reload reads on the server's loop, so files that could block or never end are
/// rejected.
fn read(path: &Path) -> Result<String, Unreadable> {
    let wrong = |problem: &str| {
        Err(Unreadable::Wrong(format!(
            "cannot read {}: {problem}",
            path.display()
        )))
    };
    let io = |error| Unreadable::Io(Error::io(format!("read {}", path.display()))(error));
    if !fs::metadata(path).map_err(io)?.is_file() {
        return wrong("not a regular file");
    }
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(io)?;
    let read = file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes);
    if read.map_err(io)? as u64 > MAX_FILE_BYTES {
        return wrong(&format!("longer than {MAX_FILE_BYTES} bytes"));
    }
    String::from_utf8(bytes).or_else(|_| wrong("not UTF-8"))
}

/// Reads the settings in the file.
pub(super) fn from_file(path: &Path, known: &[&Arg]) -> Result<SettingsSource, Unreadable> {
    let file = path.display();
    let text = read(path)?;
    let line = |at: usize| {
        let before = &text.as_bytes()[..at.min(text.len())];
        before.iter().filter(|byte| **byte == b'\n').count() + 1
    };
    let table = DeTable::parse(&text).map_err(|error| {
        let line = line(error.span().map_or(0, |span| span.start));
        Unreadable::Wrong(format!("{file}:{line}: {}", error.message()))
    })?;
    let mut source = SettingsSource::default();
    for (name, value) in table.get_ref() {
        let origin = ValueOrigin::File {
            path: path.to_owned(),
            line: line(name.span().start),
        };
        let value = match known.iter().find(|arg| key(arg) == &**name.get_ref()) {
            Some(arg) => from_toml(arg, value.get_ref()).map_err(|wanted| {
                // Of a value that is longer, the beginning will do.
                let written = text[value.span()].lines().next().unwrap_or_default();
                format!("invalid value {written}; write {wanted}")
            }),
            None => {
                let hint = nearest(name.get_ref(), known.iter().map(|arg| key(arg)));
                let hint = hint.map_or_else(
                    || "see `heartline serve --help`".into(),
                    |nearest| format!("did you mean {nearest}?"),
                );
                Err(format!("no such key; {hint}"))
            }
        };
        source.note(name.get_ref(), origin, value);
    }
    Ok(source)
}

fn from_toml(arg: &Arg, value: &DeValue<'_>) -> Result<Value, &'static str> {
    let text = |value: &DeValue<'_>| match value {
        DeValue::String(text) => Some(text.to_string()),
        DeValue::Integer(integer) if integer.radix() == 10 => Some(integer.as_str().to_owned()),
        _ => None,
    };
    if is_switch(arg) {
        return value.as_bool().map(Value::Switch).ok_or("true or false");
    }
    if is_list(arg) {
        const WANTED: &str = "an array of strings, as [\"one\", \"two\"]";
        return match value {
            DeValue::Array(values) => {
                let values = values.iter().map(|value| text(value.get_ref()));
                values
                    .collect::<Option<Vec<String>>>()
                    .map(Value::Many)
                    .ok_or(WANTED)
            }
            value => text(value).map(|one| Value::Many(vec![one])).ok_or(WANTED),
        };
    }
    text(value)
        .map(|text| Value::One(Some(text)))
        .ok_or("a string, as \"5s\", or a whole number")
}

/// The known name that this one is most like, if it is like any.
fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let likeness = |other: &str| {
        strsim::jaro_winkler(name, &other.replace('_', "-")).max(strsim::jaro_winkler(name, other))
    };
    let (likeness, nearest) = known
        .map(|other| (likeness(other), other))
        .max_by(|a, b| a.0.total_cmp(&b.0))?;
    (likeness >= LIKENESS).then_some(nearest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kubernetes_service_variables_are_recognized() {
        // As kubectl shows them in a container of a namespace with a service `heartline`.
        for (name, value) in [
            ("HEARTLINE_SERVICE_HOST", "10.96.0.12"),
            ("HEARTLINE_SERVICE_PORT", "7878"),
            ("HEARTLINE_SERVICE_PORT_ADMIN", "7879"),
            ("HEARTLINE_PORT", "tcp://10.96.0.12:7878"),
            ("HEARTLINE_PORT_7878_TCP", "tcp://10.96.0.12:7878"),
            ("HEARTLINE_PORT_7878_TCP_PROTO", "tcp"),
            ("HEARTLINE_PORT_7878_TCP_PORT", "7878"),
            ("HEARTLINE_PORT_7878_TCP_ADDR", "10.96.0.12"),
            ("HEARTLINE_ADMIN_PORT", "tcp://10.96.0.12:7879"),
        ] {
            assert!(is_service_link(name, &value.into()), "{name}");
        }
        assert!(!is_service_link("HEARTLINE_PORT", &"7878".into()));
        assert!(!is_service_link("HEARTLINE_REUSEPORT", &"true".into()));
    }
}
