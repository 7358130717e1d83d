//! The origin of a setting's value, for messages.

use std::path::PathBuf;

use crate::console::flag;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ValueOrigin {
    Default,
    File {
        path: PathBuf,
        /// From 1.
        line: usize,
    },
    /// The name of the variable.
    Environment(String),
    Flag,
}

impl ValueOrigin {
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            ValueOrigin::Default => "default",
            ValueOrigin::File { .. } => "file",
            ValueOrigin::Environment(_) => "environment",
            ValueOrigin::Flag => "flag",
        }
    }

    /// The beginning of a message about the value of `key`.
    pub(crate) fn place(&self, key: &str) -> String {
        match self {
            ValueOrigin::Default => format!("{} (default)", flag(key)),
            ValueOrigin::File { path, line } => format!("{}:{line}: {key}", path.display()),
            ValueOrigin::Environment(variable) => variable.clone(),
            ValueOrigin::Flag => flag(key),
        }
    }

    /// The place of the value, if it is not the command line.
    pub(crate) fn source_location(&self) -> Option<String> {
        match self {
            ValueOrigin::File { path, line } => Some(format!("{}:{line}", path.display())),
            ValueOrigin::Environment(variable) => Some(variable.clone()),
            ValueOrigin::Default | ValueOrigin::Flag => None,
        }
    }

    /// Sort key of error messages: flags, environment, file by line, defaults.
    pub(crate) fn rank(&self) -> (u8, usize) {
        match self {
            ValueOrigin::Flag => (0, 0),
            ValueOrigin::Environment(_) => (1, 0),
            ValueOrigin::File { line, .. } => (2, *line),
            ValueOrigin::Default => (3, 0),
        }
    }
}
