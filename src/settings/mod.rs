//! Where the settings of a server come from: flags, before environment, before file, before
//! defaults.
//!
//! All values have one parser, that of the flags: values of the environment and of a file are
//! passed to it as the flag of the same name.

mod args;
mod login;
mod sources;
mod value_origin;

use std::collections::HashMap;
use std::env;
use std::error::Error as _;
use std::ffi::OsString;
use std::num::ParseIntError;
use std::path::PathBuf;

use clap::error::{ContextKind, ContextValue};
use clap::parser::ValueSource;
use clap::{Arg, ArgMatches, Command, FromArgMatches};

use crate::console::flag;
use crate::error::{ConfigError, Error};
pub(crate) use args::{Options, ServeArgs};
pub(crate) use login::LoginArgs;
use sources::{
    LayeredValue, PREFIX, Problem, Unreadable, Variables, from_environment, from_file, is_list,
    key, set, unknown_variables,
};
pub(crate) use sources::{Value, is_switch};
pub(crate) use value_origin::ValueOrigin;

/// Flags that are no settings: where the settings are, and what to do with them.
const NOT_SETTINGS: [&str; 3] = ["config", "check", "help"];

/// One setting that is in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Setting {
    /// Its name in a file; with two hyphens before it, it is the flag.
    pub(crate) key: String,
    pub(crate) value: Value,
    pub(crate) origin: ValueOrigin,
}

/// All settings of a server.
pub(crate) struct Settings {
    pub(crate) options: Options,
    /// In the order of the flags in the help.
    pub(crate) effective: Vec<Setting>,
    /// Warnings about settings that are probably not meant, one sentence each.
    pub(crate) warnings: Vec<String>,
}

/// Why there are no settings.
#[derive(Debug)]
pub(crate) enum LoadError {
    /// Of the command line, in clap's words.
    Usage(clap::Error),
    /// Errors in the environment or the file, ordered by place.
    Settings(Vec<String>),
    /// The system cannot read the file.
    Io(Error),
}

impl From<Unreadable> for LoadError {
    fn from(why: Unreadable) -> Self {
        match why {
            Unreadable::Io(error) => LoadError::Io(error),
            Unreadable::Wrong(problem) => LoadError::Settings(vec![problem]),
        }
    }
}

impl From<clap::Error> for LoadError {
    fn from(error: clap::Error) -> Self {
        LoadError::Usage(error)
    }
}

impl Settings {
    /// Reads them anew, for the command line `argv`, which begins with the program's name and
    /// `serve`. `program` is the whole program's.
    pub(crate) fn load(program: &Command, argv: &[OsString]) -> Result<Self, LoadError> {
        Settings::layer(
            program,
            argv,
            &env::vars_os()
                .filter_map(|(name, value)| Some((name.into_string().ok()?, value)))
                .collect(),
        )
    }

    fn layer(
        program: &Command,
        argv: &[OsString],
        variables: &Variables,
    ) -> Result<Self, LoadError> {
        let serve = program
            .find_subcommand("serve")
            .expect("the program has this subcommand");
        let known: Vec<&Arg> = serve
            .get_arguments()
            .filter(|arg| !NOT_SETTINGS.contains(&arg.get_id().as_str()))
            .collect();
        let flags = matches(program, argv)?;
        let mut warnings = unknown_variables(&known, variables);

        let environment = from_environment(&known, variables);
        let (mut said, mut problems) = (environment.said, environment.problems);
        let named = flags.get_one::<PathBuf>("config").cloned();
        let variable = || set(variables, &format!("{PREFIX}CONFIG")).map(PathBuf::from);
        if let Some(path) = named.or_else(variable) {
            let file = from_file(&path, &known)?;
            problems.extend(file.problems);
            for (key, in_file) in file.said {
                warnings.extend(
                    said.get(&key)
                        .and_then(|said| emptied(&key, said, &in_file)),
                );
                said.entry(key).or_insert(in_file);
            }
        }

        let before = argv.len();
        let mut argv = argv.to_vec();
        for arg in &known {
            let key = key(arg);
            let given = flags.value_source(arg.get_id().as_str()) == Some(ValueSource::CommandLine);
            if let Some(LayeredValue { value, origin }) = said.get(key).filter(|_| !given) {
                let as_flags = as_flags(arg, value);
                if let Err(problem) = check_alone(program, arg, &as_flags) {
                    let text = format!("{}: {problem}", origin.place(key));
                    let origin = origin.clone();
                    problems.push(Problem { origin, text });
                }
                // Right behind the subcommand, where nothing that the user has written can change
                // its meaning.
                argv.splice(2..2, as_flags);
            }
        }
        if !problems.is_empty() {
            problems.sort_by_key(|problem| problem.origin.rank());
            let texts = problems.into_iter().map(|problem| problem.text);
            return Err(LoadError::Settings(texts.collect()));
        }
        let merged = if argv.len() > before {
            matches(program, &argv)?
        } else {
            flags.clone()
        };
        let effective = known
            .iter()
            .map(|arg| effective(arg, &flags, &merged, &said))
            .collect();
        Ok(Settings {
            options: Options::from_arg_matches(&merged)?,
            effective,
            warnings,
        })
    }

    /// Settings from these flags alone, whatever environment and file say, now and after a reload.
    pub(crate) fn fixed(serve: ServeArgs) -> Self {
        Settings {
            options: Options {
                config: None,
                check: false,
                serve,
            },
            effective: Vec::new(),
            warnings: Vec::new(),
        }
    }

    pub(crate) fn args(&self) -> &ServeArgs {
        &self.options.serve
    }

    /// The name of a setting in messages: the place of its value.
    pub(crate) fn place(&self, key: &str) -> String {
        self.find(key)
            .map_or_else(|| flag(key), |setting| setting.origin.place(key))
    }

    /// Error messages with the places of the wrong values, ordered by place.
    pub(crate) fn describe(&self, errors: &[Error]) -> Vec<String> {
        let mut described: Vec<_> = errors
            .iter()
            .map(|error| match error {
                Error::Config(error) => (self.rank(error), self.describe_config(error)),
                error => (ValueOrigin::Default.rank(), error.to_string()),
            })
            .collect();
        described.sort_by_key(|(rank, _)| *rank);
        described.into_iter().map(|(_, text)| text).collect()
    }

    fn rank(&self, error: &ConfigError) -> (u8, usize) {
        let setting = self.find(&error.field.replace('_', "-"));
        setting
            .map_or(&ValueOrigin::Default, |setting| &setting.origin)
            .rank()
    }

    fn describe_config(&self, error: &ConfigError) -> String {
        let key = |field: &str| field.replace('_', "-");
        let mut text = format!("{}: {}", self.place(&key(error.field)), error.problem);
        for other in error
            .against
            .iter()
            .filter_map(|field| self.find(&key(field)))
        {
            if let Some(place) = other.origin.source_location() {
                text += &format!("; {} is from {place}", other.key);
            }
        }
        text
    }

    pub(crate) fn find(&self, key: &str) -> Option<&Setting> {
        self.effective.iter().find(|setting| setting.key == key)
    }
}

fn matches(program: &Command, argv: &[OsString]) -> Result<ArgMatches, LoadError> {
    let mut matches = program.clone().try_get_matches_from(argv)?;
    let (_, serve) = matches
        .remove_subcommand()
        .expect("the command line was found to be one of serve");
    Ok(serve)
}

/// A warning if an empty variable overrides a list in the file.
fn emptied(key: &str, variable: &LayeredValue, in_file: &LayeredValue) -> Option<String> {
    let none = Value::Many(Vec::new());
    (variable.value == none && in_file.value != none).then(|| {
        let (variable, place) = (variable.origin.place(key), in_file.origin.place(key));
        format!("{variable} is empty and overrides the list at {place}")
    })
}

fn as_flags(arg: &Arg, value: &Value) -> Vec<OsString> {
    let flag = |value: &str| format!("--{}={value}", key(arg)).into();
    match value {
        Value::Switch(on) => vec![flag(&on.to_string())],
        Value::One(value) => value.iter().map(|value| flag(value)).collect(),
        Value::Many(values) if arg.is_positional() => values.iter().map(OsString::from).collect(),
        Value::Many(values) => values.iter().map(|value| flag(value)).collect(),
    }
}

/// Checks a value with clap, and returns its error without the name of a flag.
fn check_alone(program: &Command, arg: &Arg, as_flags: &[OsString]) -> Result<(), String> {
    if arg.is_positional() && as_flags.is_empty() {
        return Err("write at least one address".into());
    }
    if arg.is_positional()
        && as_flags
            .iter()
            .any(|addr| addr.to_string_lossy().starts_with('-'))
    {
        return Err("an address does not begin with a hyphen".into());
    }
    let argv = ["heartline".into(), "serve".into()]
        .into_iter()
        .chain(as_flags.iter().cloned());
    program
        .clone()
        .try_get_matches_from(argv)
        .map(drop)
        .map_err(|error| problem(&error))
}

/// clap's error about a value, and what it expects.
fn problem(error: &clap::Error) -> String {
    let Some(ContextValue::String(value)) = error.get(ContextKind::InvalidValue) else {
        let rendered = error.render().to_string();
        let first = rendered.lines().next().unwrap_or_default();
        return first.strip_prefix("error: ").unwrap_or(first).to_owned();
    };
    let expected = match (error.get(ContextKind::ValidValue), error.source()) {
        (Some(ContextValue::Strings(possible)), _) => {
            format!("; write one of {}", possible.join(", "))
        }
        (_, Some(source)) if source.is::<ParseIntError>() => {
            format!(": {source}; write a whole number")
        }
        (_, Some(source)) => format!(": {source}"),
        _ => String::new(),
    };
    format!("invalid value '{value}'{expected}")
}

fn effective(
    arg: &Arg,
    flags: &ArgMatches,
    merged: &ArgMatches,
    said: &HashMap<String, LayeredValue>,
) -> Setting {
    let id = arg.get_id().as_str();
    let values: Vec<String> = merged
        .get_raw(id)
        .into_iter()
        .flatten()
        .map(|value| value.to_string_lossy().into_owned())
        .collect();
    let value = if is_switch(arg) {
        Value::Switch(merged.get_flag(id))
    } else if is_list(arg) {
        Value::Many(values)
    } else {
        Value::One(values.into_iter().next())
    };
    let origin = match flags.value_source(id) {
        Some(ValueSource::CommandLine) => ValueOrigin::Flag,
        _ => said
            .get(key(arg))
            .map_or(ValueOrigin::Default, |said| said.origin.clone()),
    };
    Setting {
        key: key(arg).to_owned(),
        value,
        origin,
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use clap::CommandFactory;

    use super::*;

    #[derive(clap::Parser)]
    struct Program {
        #[command(subcommand)]
        _command: Subcommand,
    }

    #[derive(clap::Subcommand)]
    enum Subcommand {
        Serve(Options),
    }

    fn layer(
        flags: &[&str],
        variables: &[(&str, &str)],
        file: Option<&str>,
    ) -> Result<Settings, LoadError> {
        let mut argv: Vec<OsString> = ["heartline", "serve"]
            .iter()
            .chain(flags)
            .map(OsString::from)
            .collect();
        let mut on_disk = tempfile::NamedTempFile::new().expect("a temporary file");
        if let Some(text) = file {
            on_disk
                .write_all(text.as_bytes())
                .expect("room on the disk");
            argv.push("--config".into());
            argv.push(on_disk.path().into());
        }
        let variables = variables
            .iter()
            .map(|(name, value)| ((*name).to_owned(), OsString::from(value)))
            .collect();
        Settings::layer(&Program::command(), &argv, &variables)
    }

    fn get(settings: &Settings, key: &str) -> (Value, &'static str) {
        let setting = settings.find(key).expect("a known key");
        (setting.value.clone(), setting.origin.kind())
    }

    fn one(text: &str) -> Value {
        Value::One(Some(text.into()))
    }

    fn fault(flags: &[&str], variables: &[(&str, &str)], file: Option<&str>) -> String {
        match layer(flags, variables, file) {
            Err(LoadError::Settings(problems)) => problems.join("\n"),
            Err(LoadError::Io(error)) => error.to_string(),
            Err(LoadError::Usage(error)) => panic!("{error}"),
            Ok(_) => panic!("it was accepted"),
        }
    }

    #[test]
    fn flags_override_environment_overrides_file_overrides_defaults() {
        let file = "heartbeat = '1s'\nmissed = 1\ntick = '10ms'\nno-ping = true\nallow = ['10.0.0.0/8', '::1']\naddr = '127.0.0.1:1'";
        let variables = [
            ("HEARTLINE_HEARTBEAT", "2s"),
            ("HEARTLINE_MISSED", "2"),
            ("HEARTLINE_NO_PING", "false"),
        ];
        let settings = layer(
            &["--heartbeat", "3s", "127.0.0.1:3", "127.0.0.1:4"],
            &variables,
            Some(file),
        )
        .expect("valid");
        assert_eq!(get(&settings, "heartbeat"), (one("3s"), "flag"));
        assert_eq!(get(&settings, "missed"), (one("2"), "environment"));
        assert_eq!(get(&settings, "tick"), (one("10ms"), "file"));
        assert_eq!(get(&settings, "max-outbox"), (one("1MiB"), "default"));
        assert_eq!(
            get(&settings, "max-connections"),
            (Value::One(None), "default")
        );
        assert_eq!(
            get(&settings, "no-ping"),
            (Value::Switch(false), "environment")
        );
        assert_eq!(
            get(&settings, "allow"),
            (Value::Many(vec!["10.0.0.0/8".into(), "::1".into()]), "file")
        );
        assert_eq!(
            get(&settings, "addr"),
            (
                Value::Many(vec!["127.0.0.1:3".into(), "127.0.0.1:4".into()]),
                "flag"
            )
        );
        let config = settings.args().config();
        assert_eq!(
            config.heartbeat.map(|heartbeat| (
                heartbeat.interval.as_secs(),
                heartbeat.max_missed,
                heartbeat.send_pings
            )),
            Some((3, 2, true))
        );
        assert!(settings.warnings.is_empty());
    }

    #[test]
    fn list_limits_are_applied() {
        let settings = layer(
            &[],
            &[("HEARTLINE_ADDR", "127.0.0.1:5, [::1]:5")],
            Some("deny = []\nallow = '10.0.0.0/8'"),
        )
        .expect("valid");
        assert_eq!(
            get(&settings, "addr").0,
            Value::Many(vec!["127.0.0.1:5".into(), "[::1]:5".into()])
        );
        assert_eq!(get(&settings, "deny"), (Value::Many(Vec::new()), "file"));
        assert_eq!(
            get(&settings, "allow").0,
            Value::Many(vec!["10.0.0.0/8".into()])
        );
    }

    #[test]
    fn double_hyphen_ends_flags_of_the_command_line_only() {
        let settings =
            layer(&["--", "127.0.0.1:3"], &[("HEARTLINE_MISSED", "7")], None).expect("valid");
        assert_eq!(get(&settings, "missed"), (one("7"), "environment"));
        assert_eq!(
            get(&settings, "addr").0,
            Value::Many(vec!["127.0.0.1:3".into()])
        );
    }

    #[test]
    fn error_names_its_source() {
        let unknown = fault(&[], &[], Some("\nheartbeet = '5s'"));
        assert!(
            unknown.ends_with(":2: heartbeet: no such key; did you mean heartbeat?"),
            "{unknown}"
        );
        assert!(
            fault(&[], &[], Some("max_connections = 5")).contains("did you mean max-connections?")
        );
        assert!(fault(&[], &[], Some("zzz = 5")).contains("--help"));
        assert!(
            fault(&[], &[], Some("check = true")).contains("no such key"),
            "what is to be done is no setting"
        );
        let wrong = fault(&[], &[], Some("missed = 3\nheartbeat = 'soon'"));
        assert!(
            wrong.contains(":2: heartbeat: invalid value 'soon'"),
            "{wrong}"
        );
        assert!(
            fault(&[], &[], Some("heartbeat = true"))
                .contains(":1: heartbeat: invalid value true; write a string")
        );
        assert!(
            fault(&[], &[], Some("no-ping = 'yes'"))
                .contains(":1: no-ping: invalid value 'yes'; write true or false")
        );
        assert!(
            fault(&[], &[], Some("allow = [1.5]"))
                .contains(":1: allow: invalid value [1.5]; write an array")
        );
        assert!(fault(&[], &[], Some("addr = ['-x']")).contains(":1: addr: an address"));
        assert!(fault(&[], &[], Some("addr = ['--check']")).contains(":1: addr: "));
        assert!(fault(&[], &[], Some("a = 1\nb = ")).contains(":2: "));
        assert!(
            fault(&["--config", "/nowhere/at/all"], &[], None)
                .starts_with("cannot read /nowhere/at/all")
        );
        let variable = fault(&[], &[("HEARTLINE_TICK", "often")], None);
        assert!(
            variable.starts_with("HEARTLINE_TICK: invalid value 'often'"),
            "{variable}"
        );
        assert!(
            fault(&[], &[("HEARTLINE_REUSE_PORT", "maybe")], None)
                .starts_with("HEARTLINE_REUSE_PORT: write true or false")
        );
    }

    #[test]
    fn wrong_value_in_a_file_names_what_is_expected() {
        for (file, said) in [
            (
                "app = 'eco'",
                "invalid value 'eco'; write one of echo, broadcast, sink",
            ),
            (
                "missed = 'many'",
                "invalid value 'many': invalid digit found in string; write a whole number",
            ),
            ("missed = 300", "invalid value '300': 300 is not in 0..=255"),
            (
                "max-outbox = 'lots'",
                "invalid value 'lots': not a size; write 65536, 64KiB or 1MiB",
            ),
            (
                "allow = ['::1', '10.1.0.0/8']",
                "invalid value '10.1.0.0/8': \"10.1.0.0/8\" is not a network: bits are set beyond the prefix",
            ),
            ("addr = []", "write at least one address"),
        ] {
            let key = file.split(' ').next().unwrap_or_default();
            let problem = fault(&[], &[], Some(file));
            assert!(
                problem.contains(&format!(":1: {key}: {said}")) && !problem.contains("--"),
                "{problem}"
            );
        }
        let variable = fault(&[], &[("HEARTLINE_ON_FULL", "panic")], None);
        assert_eq!(
            variable,
            "HEARTLINE_ON_FULL: invalid value 'panic'; write one of refuse, evict-idlest"
        );
        assert_eq!(
            fault(&[], &[("HEARTLINE_ADDR", "")], None),
            "HEARTLINE_ADDR: write at least one address"
        );
    }

    #[test]
    fn contradiction_names_every_source() {
        let described = |flags: &[&str], variables: &[(&str, &str)], file: &str| {
            let settings = layer(flags, variables, Some(file)).expect("each by itself is valid");
            let error = settings
                .args()
                .config()
                .check()
                .expect_err("they contradict each other");
            settings.describe(&[error.into()]).remove(0)
        };
        let problem = described(&[], &[], "\ntick = '4s'");
        assert!(
            problem.contains(":2: tick: 4s is too coarse for a heartbeat of 5s")
                && problem.ends_with("at most half of it"),
            "{problem}"
        );
        let problem = described(&[], &[("HEARTLINE_HEARTBEAT", "100ms")], "");
        assert!(
            problem.starts_with("--tick (default): 100ms is too coarse"),
            "{problem}"
        );
        assert!(
            problem.ends_with("; heartbeat is from HEARTLINE_HEARTBEAT"),
            "{problem}"
        );
        let problem = described(
            &["--user-timeout", "10s"],
            &[("HEARTLINE_HEARTBEAT", "8s")],
            "missed = 2",
        );
        assert!(
            problem.starts_with("--user-timeout: 10s")
                && problem.contains("; heartbeat is from HEARTLINE_HEARTBEAT"),
            "{problem}"
        );
        assert!(
            problem.contains("; missed is from ") && problem.ends_with(":1"),
            "{problem}"
        );
        let problem = described(&[], &[], "max-message = 1");
        assert!(
            problem.contains(":1: max-message: must have room for a heartbeat word: 4 bytes"),
            "{problem}"
        );
    }

    #[test]
    fn flag_turns_a_switch_of_file_or_environment_off() {
        for flag in ["--no-ping=false", "--no-ping=true", "--no-ping"] {
            for there in ["false", "true"] {
                let settings = layer(
                    &[flag, "127.0.0.1:3"],
                    &[("HEARTLINE_NO_PING", there)],
                    None,
                )
                .expect("valid");
                assert_eq!(
                    get(&settings, "no-ping"),
                    (Value::Switch(!flag.ends_with("false")), "flag"),
                    "{flag} {there}"
                );
                assert_eq!(
                    get(&settings, "addr").0,
                    Value::Many(vec!["127.0.0.1:3".into()]),
                    "which is no value of the switch"
                );
            }
        }
    }

    #[test]
    fn empty_variable_clears_a_list_with_a_warning() {
        let settings = layer(
            &[],
            &[("HEARTLINE_ALLOW", ""), ("HEARTLINE_DENY", "")],
            Some("allow = ['10.0.0.0/8']"),
        )
        .expect("valid");
        assert_eq!(
            get(&settings, "allow"),
            (Value::Many(Vec::new()), "environment")
        );
        assert_eq!(
            get(&settings, "deny"),
            (Value::Many(Vec::new()), "environment")
        );
        let [warning] = &settings.warnings[..] else {
            panic!("{:?}", settings.warnings)
        };
        assert!(
            warning.starts_with("HEARTLINE_ALLOW is empty and overrides the list at ")
                && warning.ends_with(":1: allow"),
            "{warning}"
        );
    }

    #[test]
    fn empty_variables_are_ignored_and_misspelled_ones_warned_about() {
        let variables = [
            ("HEARTLINE_MISSED", ""),
            ("HEARTLINE_CONFIG", ""),
            ("HEARTLINE_HEARTBEET", "1s"),
            ("HEARTLINE_QQQ", "1"),
        ];
        let settings = layer(&[], &variables, None).expect("valid");
        assert_eq!(get(&settings, "missed").1, "default");
        assert_eq!(
            settings.warnings,
            ["HEARTLINE_HEARTBEET is not a setting; did you mean HEARTLINE_HEARTBEAT?"]
        );
    }

    #[test]
    fn wrong_flags_are_clap_s_to_name() {
        assert!(matches!(
            layer(&["--missed", "many"], &[], None),
            Err(LoadError::Usage(_))
        ));
        assert!(matches!(
            layer(&["--no-ping=maybe"], &[], None),
            Err(LoadError::Usage(_))
        ));
    }
}
