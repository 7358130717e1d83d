//! Notifications to the service manager: listening, watchdog, reload, drain (sd_notify(3)).
//!
//! A socket of std's and no crate: those of the crates block while the manager does not read, and
//! the loop with it. Here a message waits until the manager has room for it.

use std::collections::VecDeque;
use std::env;
use std::ffi::OsStr;
use std::fmt;
use std::io;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::process;
use std::time::Duration;

use crate::net::{self, MonotonicClock};
use crate::server::Server;

/// How often a message that the manager has no room for is sent again. The loop does not wait for
/// it.
const RETRY: Duration = Duration::from_millis(100);
/// Most messages that wait for the manager. Each replaces an earlier one of its kind. Later ones
/// are lost.
const MAX_UNSENT: usize = 8;
/// A watchdog is not fed more often, however short it is: the poll does not wait for less.
const MIN_INTERVAL: Duration = Duration::from_millis(1);

/// The service manager that started this process, if one did.
pub(super) struct Manager(Option<ManagerSocket>);

struct ManagerSocket {
    socket: UnixDatagram,
    clock: MonotonicClock,
    watchdog: Option<Watchdog>,
    told_of_drain: bool,
    /// Messages that the manager had no room for, oldest first, and when they are sent again.
    unsent: VecDeque<String>,
    retry_at: Duration,
    /// The last message was not taken, and this was logged.
    failing: bool,
}

/// The watchdog of the service manager. The loop itself feeds it: if the loop is stuck, the manager
/// restarts the server.
struct Watchdog {
    interval: Duration,
    /// On the link's clock.
    due: Duration,
}

impl Manager {
    /// The manager of `NOTIFY_SOCKET`. An invalid name is logged, and the server runs without it.
    pub(super) fn from_env() -> Self {
        let Some(name) = env::var_os("NOTIFY_SOCKET") else {
            return Manager(None);
        };
        match connect(&name) {
            Ok(socket) => {
                let watchdog = watchdog_interval().map(|interval| Watchdog {
                    interval,
                    due: interval,
                });
                Manager(Some(ManagerSocket {
                    socket,
                    clock: MonotonicClock::start(),
                    watchdog,
                    told_of_drain: false,
                    unsent: VecDeque::new(),
                    retry_at: Duration::ZERO,
                    failing: false,
                }))
            }
            Err(error) => {
                log::warn!("notify socket={name:?} error=\"{error}\"");
                Manager(None)
            }
        }
    }

    /// The server listens, so dependent units can start; or a reload has ended.
    pub(super) fn ready(&mut self, server: &Server) {
        if let Some(link) = self.0.as_mut().filter(|link| !link.told_of_drain) {
            link.send(format_args!("READY=1\nSTATUS={}\n", StatusSummary(server)));
        }
    }

    /// The settings are about to be read again. [`Manager::ready`] has to follow, whatever the
    /// result: the manager waits for it.
    ///
    /// A draining server has sent STOPPING=1, which cannot be taken back.
    pub(super) fn reloading(&mut self) {
        if let Some(link) = self.0.as_mut().filter(|link| !link.told_of_drain) {
            link.send(format_args!(
                "RELOADING=1\nMONOTONIC_USEC={}\n",
                net::monotonic_ns() / 1000
            ));
        }
    }

    /// How long a turn may wait, so that the watchdog is fed in time; `None` without a watchdog.
    pub(super) fn next_wait(&self) -> Option<Duration> {
        let link = self.0.as_ref()?;
        let watchdog = link.watchdog.as_ref().map(|watchdog| watchdog.due);
        let retry = (!link.unsent.is_empty()).then_some(link.retry_at);
        let due = watchdog.into_iter().chain(retry).min()?;
        Some(due.saturating_sub(link.clock.elapsed()))
    }

    /// To be called after each turn, the last one included.
    pub(super) fn after_turn(&mut self, server: &Server) {
        let Some(link) = &mut self.0 else { return };
        if server.is_draining() && !link.told_of_drain {
            link.told_of_drain = true;
            link.send(format_args!(
                "STOPPING=1\nSTATUS={}\n",
                StatusSummary(server)
            ));
        }
        link.send_unsent();
        let Some(watchdog) = &mut link.watchdog else {
            return;
        };
        let now = link.clock.elapsed();
        if watchdog.due <= now {
            watchdog.due = now + watchdog.interval;
            // One that waits already feeds the watchdog when it is taken.
            if !link.unsent.is_empty() {
                return;
            }
            link.send(format_args!(
                "WATCHDOG=1\nSTATUS={}\n",
                StatusSummary(server)
            ));
        }
    }
}

impl ManagerSocket {
    fn send(&mut self, message: fmt::Arguments<'_>) {
        if self.unsent.len() < MAX_UNSENT {
            self.unsent.push_back(message.to_string());
        }
        self.retry_at = Duration::ZERO;
        self.send_unsent();
    }

    /// Sends waiting messages, as far as the manager has room.
    fn send_unsent(&mut self) {
        if self.unsent.is_empty() || self.clock.elapsed() < self.retry_at {
            return;
        }
        while let Some(message) = self.unsent.front() {
            let result = self.socket.send(message.as_bytes());
            // Otherwise each message to the watchdog would log it.
            if let Err(error) = &result
                && !std::mem::replace(&mut self.failing, true)
            {
                log::warn!("notify error=\"{error}\"");
            }
            match result {
                Ok(_) => self.failing = false,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.retry_at = self.clock.elapsed() + RETRY;
                    return;
                }
                Err(_) => {}
            }
            self.unsent.pop_front();
        }
    }
}

fn connect(name: &OsStr) -> io::Result<UnixDatagram> {
    let socket = UnixDatagram::unbound()?;
    socket.connect_addr(&address(name)?)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// A path, or after an `@` a name in Linux's abstract namespace.
fn address(name: &OsStr) -> io::Result<SocketAddr> {
    #[cfg(target_os = "linux")]
    if let Some(name) = name.as_encoded_bytes().strip_prefix(b"@") {
        return <SocketAddr as std::os::linux::net::SocketAddrExt>::from_abstract_name(name);
    }
    SocketAddr::from_pathname(name)
}

/// Half of the time after which the manager takes the process for stuck, as sd_watchdog_enabled(3)
/// recommends; `None` if it does not watch this process.
fn watchdog_interval() -> Option<Duration> {
    let number = |name| env::var(name).ok()?.parse::<u64>().ok();
    let is_other = number("WATCHDOG_PID").is_some_and(|pid| pid != u64::from(process::id()));
    let limit = number("WATCHDOG_USEC").filter(|usec| *usec > 0 && !is_other)?;
    Some((Duration::from_micros(limit) / 2).max(MIN_INTERVAL))
}

/// The line that `systemctl status` shows.
struct StatusSummary<'a>(&'a Server);

impl fmt::Display for StatusSummary<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let StatusSummary(server) = self;
        let doing = if server.is_draining() {
            "draining"
        } else {
            "serving"
        };
        write!(
            f,
            "{doing}, {} open, {} since start",
            server.connections(),
            server.stats().opened
        )
    }
}
