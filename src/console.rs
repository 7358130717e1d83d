//! Output for the user: notices on stderr, results on stdout.

use std::io::{self, Write};
use std::process::ExitCode;

use crate::error::Error;

/// Prints a sentence to stderr. A stderr that is closed is no reason to fail.
pub(crate) fn notice(sentence: &str) {
    let _ = writeln!(io::stderr(), "heartline: {sentence}");
}

/// Prints the output of a command. `EPIPE` is not an error (`| head`); other write errors are.
pub(crate) fn print(text: &[u8]) -> Result<(), Error> {
    let mut stdout = io::stdout().lock();
    to_stdout(stdout.write_all(text).and_then(|()| stdout.flush()))
}

/// Prints clap's own message: to stderr for wrong usage, to stdout for `--help` and `--version`.
pub(crate) fn explain(error: &clap::Error) -> Result<ExitCode, Error> {
    let printed = error.print().and_then(|()| io::stdout().flush());
    if error.use_stderr() {
        // The exit code is 2 even if stderr is closed.
        return Ok(ExitCode::from(2));
    }
    to_stdout(printed).map(|()| ExitCode::SUCCESS)
}

fn to_stdout(printed: io::Result<()>) -> Result<(), Error> {
    match printed {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        printed => printed.map_err(Error::io("write to stdout")),
    }
}

/// An error as the user reads it: a wrong setting by its flag.
pub(crate) fn describe(error: &Error) -> String {
    match error {
        Error::Config(error) => format!(
            "{}: {}",
            flag(&error.field.replace('_', "-")),
            error.problem
        ),
        error => error.to_string(),
    }
}

/// How messages name the flag of a key.
pub(crate) fn flag(key: &str) -> String {
    if key == "addr" {
        "ADDR".into()
    } else {
        format!("--{key}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ConfigError;

    #[test]
    fn configuration_error_names_its_flag() {
        let error = Error::from(ConfigError::new("max_retry_delay", "too short"));
        assert_eq!(describe(&error), "--max-retry-delay: too short");
        assert_eq!(
            describe(&Error::from(ConfigError::new("addr", "no port"))),
            "ADDR: no port"
        );
    }
}
