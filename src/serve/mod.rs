//! `heartline serve`.

mod check;
mod handler;
mod notify;
mod proofs;
mod reload;
mod signals;

use std::io::Write;
use std::net::{SocketAddr, TcpListener};
use std::process::ExitCode;

use clap::Command;
use listenfd::ListenFd;

use crate::admin::server::Admin;
use crate::close::CloseReason;
use crate::console::{explain, notice};
use crate::engine::Stats;
use crate::error::Error;
use crate::logging;
use crate::server::{Server, Turn};
use crate::settings::{LoadError, ServeArgs, Settings};
use handler::ServeHandler;
use notify::Manager;
use proofs::Proofs;
use signals::{Signal, Signals};

/// Serves with the settings of flags, environment and file, or only checks them. `program` is the
/// whole command line.
pub(crate) fn run(program: Command) -> Result<ExitCode, Error> {
    let mut settings = match reload::load(&program) {
        Ok(settings) => settings,
        Err(LoadError::Usage(error)) => return explain(&error),
        Err(LoadError::Io(error)) => return Err(error),
        Err(LoadError::Settings(problems)) => {
            problems.iter().for_each(|problem| notice(problem));
            return Ok(ExitCode::from(2));
        }
    };
    let passed = if settings.options.check {
        Vec::new()
    } else {
        passed_listeners()?
    };
    let names = match check::examine(&settings, passed.is_empty()) {
        Ok(names) => names,
        Err(errors) => return Ok(cannot_start(&settings, &errors)),
    };
    let done = if settings.options.check {
        check::run(&settings)
    } else {
        hold(&mut settings, Some(&program), passed, &names)
    };
    match done {
        Err(error @ Error::Config(_)) => Ok(cannot_start(&settings, &[error])),
        result => result.map(|()| ExitCode::SUCCESS),
    }
}

/// Prints each error on a line.
fn cannot_start(settings: &Settings, errors: &[Error]) -> ExitCode {
    settings
        .describe(errors)
        .iter()
        .for_each(|line| notice(line));
    let is_usage = errors.iter().any(|error| matches!(error, Error::Config(_)));
    ExitCode::from(if is_usage { 2 } else { 1 })
}

/// Serves with these settings, whatever the environment says.
pub(crate) fn run_with(args: ServeArgs) -> Result<ExitCode, Error> {
    let mut settings = Settings::fixed(args);
    let passed = passed_listeners()?;
    let names =
        check::examine(&settings, passed.is_empty()).map_err(|mut errors| errors.swap_remove(0))?;
    hold(&mut settings, None, passed, &names).map(|()| ExitCode::SUCCESS)
}

/// Serves until a signal, or a request to the admin endpoint, ends it. Only the addresses listened
/// on go to stdout, one `listening ADDR` per line, and `admin ADDR` where there is an admin
/// endpoint.
fn hold(
    settings: &mut Settings,
    program: Option<&Command>,
    passed: Vec<TcpListener>,
    names: &[Vec<SocketAddr>],
) -> Result<(), Error> {
    let args = settings.args();
    logging::start(&args.log, &settings.place("log-file"))?;
    let config = args.config();
    let notes = check::notes(settings);
    let mut app = ServeHandler::new(args.app, Proofs::read(&args.login)?);
    let mut server = if passed.is_empty() {
        Server::bind_names(names, config)?
    } else {
        Server::from_listeners(passed, config)?
    };
    for note in notes {
        log::warn!("config note=\"{note}\"");
    }
    let mut signals = Signals::watch(&server)?;
    let mut admin = Admin::open(&args.admin, &app.app.to_string(), &mut server)?;
    let mut manager = Manager::from_env();
    announce(&server.local_addrs(), admin.as_ref());
    manager.ready(&server);
    loop {
        let wait = [
            admin.as_ref().and_then(Admin::next_wait),
            manager.next_wait(),
            logging::next_wait(),
        ]
        .into_iter()
        .flatten()
        .min();
        let turn = server.turn(&mut Admin::remembering(admin.as_mut(), &mut app), wait)?;
        manager.after_turn(&server);
        logging::flush();
        if turn == Turn::Finished {
            break;
        }
        while let Some(signal) = signals.next(&server) {
            match signal {
                Signal::Terminate => server.handle().shutdown(settings.args().drain),
                Signal::Reopen => reload::reopen_log(settings),
                Signal::HangUp => {
                    manager.reloading();
                    if let Some(program) = program {
                        reload::reload(&mut server, &mut app, settings, program);
                    }
                    manager.ready(&server);
                }
            }
        }
        if let Some(admin) = &mut admin {
            admin.turn(&mut server, settings.args().drain);
        }
    }
    log_end(server.stats());
    Ok(())
}

fn log_end(stats: &Stats) {
    log::info!(
        "finished opened={} closed={} heartbeat_timeout={} worst_overshoot_ms={} worst_lag_ms={} stalls={} stalled_ms={}",
        stats.opened,
        stats.closed_in_all(),
        stats.closed(CloseReason::HeartbeatTimeout),
        stats.overshoot.max().as_millis(),
        stats.lag.max().as_millis(),
        stats.stalls,
        stats.stalled_ms,
    );
}

/// Listening sockets that a service manager has passed (`LISTEN_FDS`, sd_listen_fds(3)).
fn passed_listeners() -> Result<Vec<TcpListener>, Error> {
    let mut passed = ListenFd::from_env();
    let mut listeners = Vec::new();
    for index in 0..passed.len() {
        listeners.extend(
            passed
                .take_tcp_listener(index)
                .map_err(Error::io("take a socket of LISTEN_FDS"))?,
        );
    }
    Ok(listeners)
}

fn announce(addrs: &[SocketAddr], admin: Option<&Admin>) {
    // With stdout closed the addresses are in the log only.
    let mut stdout = std::io::stdout().lock();
    for addr in addrs {
        let _ = writeln!(stdout, "listening {addr}");
        log::info!("listening addr={addr}");
    }
    if let Some(admin) = admin {
        let addr = admin.address();
        let _ = writeln!(stdout, "admin {addr}");
        log::info!("admin addr={addr}");
    }
    let _ = stdout.flush();
}
