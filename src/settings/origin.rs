//! Where the value of a setting comes from, for messages.

use std::path::PathBuf;

use crate::console::flag;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
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

impl Origin {
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Origin::Default => "default",
            Origin::File { .. } => "file",
            Origin::Environment(_) => "environment",
            Origin::Flag => "flag",
        }
    }

    /// What a message about the value of `key` begins with.
    pub(crate) fn place(&self, key: &str) -> String {
        match self {
            Origin::Default => format!("{} (default)", flag(key)),
            Origin::File { path, line } => format!("{}:{line}: {key}", path.display()),
            Origin::Environment(variable) => variable.clone(),
            Origin::Flag => flag(key),
        }
    }

    /// Where it was written, if that is not where whoever reads the message has just typed.
    pub(crate) fn source_location(&self) -> Option<String> {
        match self {
            Origin::File { path, line } => Some(format!("{}:{line}", path.display())),
            Origin::Environment(variable) => Some(variable.clone()),
            Origin::Default | Origin::Flag => None,
        }
    }

    /// Sort key of error messages: flags, environment, file by line, defaults.
    pub(crate) fn rank(&self) -> (u8, usize) {
        match self {
            Origin::Flag => (0, 0),
            Origin::Environment(_) => (1, 0),
            Origin::File { line, .. } => (2, *line),
            Origin::Default => (3, 0),
        }
    }
}
