//! SIGHUP: the settings are read again, and what can change on a live server does.

use std::env;

use clap::Command;

use super::handler::ServeHandler;
use super::proofs::Proofs;
use crate::error::Error;
use crate::logging;
use crate::server::Server;
use crate::settings::{LoadError, Settings};

/// Settings that are fixed at the start, in addition to those that [`Server::reconfigure`] keeps.
const KEPT: [&str; 4] = ["addr", "app", "admin", "admin-token-file"];

/// Reads the settings of this process's command line, environment and file.
pub(super) fn load(program: &Command) -> Result<Settings, LoadError> {
    Settings::load(program, &env::args_os().collect::<Vec<_>>())
}

/// Applies the current settings, and opens the log anew. Invalid settings are logged, and nothing
/// changes.
pub(super) fn reload(
    server: &mut Server,
    handler: &mut ServeHandler,
    settings: &mut Settings,
    program: &Command,
) {
    if let Err(problem) = load(program)
        .map_err(|fault| describe(&fault))
        .and_then(|new| apply(server, handler, settings, new))
    {
        log::error!("reload failed=\"{problem}\" settings=unchanged");
    }
}

/// Reopens the log with the current settings.
pub(super) fn reopen_log(settings: &Settings) {
    match logging::prepare(&settings.args().log, &settings.place("log-file")) {
        Ok(log) => {
            log.take_effect();
            log::info!("log reopened");
        }
        Err(error) => log::error!("log reopen failed=\"{error}\" log=unchanged"),
    }
}

fn apply(
    server: &mut Server,
    handler: &mut ServeHandler,
    old: &mut Settings,
    mut new: Settings,
) -> Result<(), String> {
    // Steps that can fail come before steps that change anything.
    let log = logging::prepare(&new.args().log, &new.place("log-file"))
        .map_err(|error| error.to_string())?;
    let proofs = Proofs::read(&new.args().login).map_err(|error| error.to_string())?;
    let config = new.args().config();
    let kept = server
        .reconfigure(config.clone())
        .map_err(|error| match config.check() {
            Err(_) => {
                let problems = config.problems().into_iter().map(Error::from);
                new.describe(&problems.collect::<Vec<_>>()).join("; ")
            }
            // The error lies in the combination with fixed settings, for which no place can be
            // named.
            Ok(()) => format!("{error}; settings that need a restart are unchanged"),
        })?;
    log.take_effect();
    let expired = handler.replace_proofs(&mut server.context(), proofs);
    if expired > 0 {
        log::info!("tokens expired_connections={expired}");
    }
    let differs = |key: &str| {
        let value = |settings: &Settings| settings.find(key).map(|setting| setting.value.clone());
        value(old) != value(&new)
    };
    let stays =
        |key: &str| KEPT.contains(&key) || kept.iter().any(|field| field.replace('_', "-") == key);
    let (kept, changed): (Vec<&str>, Vec<&str>) = new
        .effective
        .iter()
        .map(|setting| setting.key.as_str())
        .filter(|key| differs(key))
        .partition(|key| stays(key));
    log::info!("reload changed={} kept={}", listed(&changed), listed(&kept));
    if !kept.is_empty() {
        log::warn!(
            "reload kept={} reason=\"these settings need a restart\"",
            listed(&kept)
        );
    }
    for warning in &new.warnings {
        log::warn!("config note=\"{warning}\"");
    }
    for note in server.config().notes() {
        log::warn!("config note=\"{note}\"");
    }
    // The next reload is compared with these settings.
    let kept: Vec<String> = kept.into_iter().map(str::to_owned).collect();
    for setting in new
        .effective
        .iter_mut()
        .filter(|setting| kept.contains(&setting.key))
    {
        if let Some(in_force) = old.find(&setting.key) {
            *setting = in_force.clone();
        }
    }
    *old = new;
    Ok(())
}

fn listed(keys: &[&str]) -> String {
    if keys.is_empty() {
        "none".into()
    } else {
        keys.join(",")
    }
}

fn describe(fault: &LoadError) -> String {
    match fault {
        LoadError::Settings(problems) => problems.join("; "),
        LoadError::Io(error) => error.to_string(),
        LoadError::Usage(error) => error
            .render()
            .to_string()
            .lines()
            .next()
            .unwrap_or_default()
            .to_owned(),
    }
}
