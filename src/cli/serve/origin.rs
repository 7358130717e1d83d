//! Where the value of a setting comes from, for messages.

use crate::cli;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    Default,
    /// The file with the line, as `heartline.toml:3`.
    File(String),
    /// The name of the variable.
    Environment(String),
    Flag,
}

impl Origin {
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Origin::Default => "default",
            Origin::File(_) => "file",
            Origin::Environment(_) => "environment",
            Origin::Flag => "flag",
        }
    }

    /// What a message about the value of `key` begins with.
    pub(super) fn place(&self, key: &str) -> String {
        match self {
            Origin::Default => format!("{} (default)", cli::flag(key)),
            Origin::File(line) => format!("{line}: {key}"),
            Origin::Environment(variable) => variable.clone(),
            Origin::Flag => cli::flag(key),
        }
    }

    /// Where it was written, if that is not where whoever reads the message has just typed.
    pub(super) fn elsewhere(&self) -> Option<&str> {
        match self {
            Origin::File(place) | Origin::Environment(place) => Some(place),
            Origin::Default | Origin::Flag => None,
        }
    }
}
