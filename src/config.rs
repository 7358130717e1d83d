//! The server's configuration, checked once and together, and the parts of it that the client
//! shares.

mod heartbeat;
mod login;

use std::num::NonZeroU32;
use std::time::Duration;

use crate::access_list::{AccessList, Networks};
use crate::error::ConfigError;
use crate::framing::{Codec, Framing, HeartbeatWords};
use crate::keepalive::Keepalive;
use crate::time::duration_to_ms;
pub use heartbeat::Heartbeat;
pub use login::{Login, LoginMode, OnDuplicate};

/// The configuration of a server. `Config::default()` is safe on any network: every buffer is
/// bounded and dead peers are closed.
///
/// Fields are plain; [`Config::check`] runs when a server is bound and names the field that is
/// wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// How messages are separated. Default: lines.
    pub framing: Framing,
    /// The heartbeat words. Default: `ping` and `pong`.
    pub words: HeartbeatWords,
    /// When to ping and when to close. `None` leaves finding dead peers to OS keepalive. Default:
    /// every 5 s, 3 missed.
    pub heartbeat: Option<Heartbeat>,
    /// OS keepalive on accepted connections. Default: after 30 s idle, every 30 s, 3 probes.
    pub keepalive: Option<Keepalive>,
    /// `TCP_USER_TIMEOUT` (RFC 5482; tcp(7)): how long sent data may stay unacknowledged, in whole
    /// milliseconds. Default: `None`, the kernel's own timeout (about 15 minutes on Linux). It also
    /// replaces the keepalive probe count, see [`Keepalive::check`]. Ignored where the system has
    /// no such option.
    pub user_timeout: Option<Duration>,
    /// Bounds on what peers can make this process hold.
    pub limits: Limits,
    /// Names of connections. Default: none.
    pub login: Login,
    /// Which addresses may connect: of the peer, or the one that a PROXY header names. Default:
    /// all.
    pub access: AccessList,
    /// Balancers whose connections begin with a PROXY protocol header, version 1 or 2, with the
    /// address of the peer. From other addresses a header is a message. Default: none.
    pub proxies: Networks,
    /// Resolution of the timer wheel, at least 1 ms and at most half a heartbeat. Verdicts come at
    /// most one tick late. Default: 100 ms.
    pub tick: Duration,
    /// Connections that the kernel may hold completed but not yet accepted (listen(2)); the
    /// system's `somaxconn` caps it silently. Default: 4096.
    pub backlog: u32,
    /// The last message to each peer in a shutdown, after the replies to its requests and at
    /// its own instant of the drain, so that clients that reconnect on it do not come all at once.
    /// Default: none.
    pub goodbye: Option<Vec<u8>>,
    /// `SO_REUSEPORT`: several processes listen on one address and the kernel spreads connections
    /// over them. Default: off.
    pub reuse_port: bool,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            framing: Framing::Lines,
            words: HeartbeatWords::default(),
            heartbeat: Some(Heartbeat::default()),
            keepalive: Some(Keepalive::default()),
            user_timeout: None,
            limits: Limits::default(),
            login: Login::default(),
            access: AccessList::default(),
            proxies: Networks::default(),
            tick: Duration::from_millis(100),
            backlog: 4096,
            goodbye: None,
            reuse_port: false,
        }
    }
}

/// Bounds on what peers can make the server hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Longest message in bytes, its framing not counted. A longer one closes the connection.
    /// Default: 64 KiB.
    pub max_message: usize,
    /// Most bytes queued for one peer. At half of it the server stops reading from that peer until
    /// the queue has shrunk to a quarter; a message that would pass the bound closes the
    /// connection. Default: 1 MiB.
    pub max_outbox: usize,
    /// What happens to a message that would exceed a peer's outbox. Default: the peer is
    /// closed as a slow reader.
    pub on_slow: OnSlow,
    /// Most memory held for all peers together, by unfinished messages and by queues. From half of
    /// it on, reading from a peer stops with 4 KiB queued for it. At the limit, the connections
    /// that hold most are closed, first those whose queue the kernel did not take or whose peer
    /// sent what is held. `None`: only the limits per connection. Default: 256 MiB.
    pub max_memory: Option<usize>,
    /// How long a peer may make no progress while bytes are queued that its socket has no room for:
    /// if its kernel acknowledges less than 64 bytes per second on average (where the system
    /// reports it, `SIOCOUTQ` of tcp(7)), it is closed as a slow reader, even if it sends
    /// meanwhile, after 5/4 of this time at the latest. `None`: only the heartbeat closes it.
    /// Default: 30 s.
    pub write_timeout: Option<Duration>,
    /// How long a frame may take from its first byte to its last. Time in which the server does not
    /// read from the peer does not count. `None`: no limit. Default: 30 s.
    pub frame_timeout: Option<Duration>,
    /// How long a new connection may be without a first message; a ping or a pong counts as one.
    /// `None`: no limit. Default: `None`.
    pub first_message_timeout: Option<Duration>,
    /// Most messages that one peer may send per second, heartbeats included, and in one burst after
    /// a rest. A peer that sends faster is not read until it is under the rate again, and is closed
    /// after ten seconds of it. Costs 32 bytes per connection. `None`: no limit. Default: `None`.
    pub max_message_rate: Option<NonZeroU32>,
    /// Most connections at once. `None`, and any number that is too large, means as many as the
    /// descriptor limit allows. Default: `None`.
    pub max_connections: Option<usize>,
    /// Most connections at once from one IP address; 0: no limit. Default: 0.
    pub max_connections_per_ip: usize,
    /// How many leading bits of an IPv6 address count as one address for `max_connections_per_ip`,
    /// from 1 to 128: a host commonly has a whole /64 (RFC 7421). Default: 64.
    pub per_ip_prefix_v6: u8,
    /// What happens to a new connection at `max_connections`. Default: it is
    /// refused.
    pub on_full: OnFull,
}

/// What happens to a message that would exceed a peer's outbox.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnSlow {
    /// The peer is closed as a slow reader: every open connection has received everything.
    #[default]
    Close,
    /// The message is dropped, and counted; the peer stays. Answers to the peer's own messages are
    /// never dropped: where one does not fit, the peer is closed, since it would wait for it in
    /// vain.
    Drop,
}

/// What happens to a new connection at `max_connections`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnFull {
    /// The new connection is rejected.
    #[default]
    Refuse,
    /// It takes the place of the one that has been silent for longest.
    EvictIdlest,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            max_message: 64 * 1024,
            max_outbox: 1024 * 1024,
            on_slow: OnSlow::Close,
            max_memory: Some(256 * 1024 * 1024),
            write_timeout: Some(Duration::from_secs(30)),
            frame_timeout: Some(Duration::from_secs(30)),
            first_message_timeout: None,
            max_message_rate: None,
            max_connections: None,
            max_connections_per_ip: 0,
            per_ip_prefix_v6: 64,
            on_full: OnFull::Refuse,
        }
    }
}

/// 2^31 ms: the longest wait of every timer, here and in the kernel.
const MAX_DURATION: Duration = Duration::from_millis(1 << 31);

/// Checks the OS timeouts against each other and against `bound`, the longest time that the
/// heartbeat allows a live peer.
pub(crate) fn check_os_timeouts(
    keepalive: Option<&Keepalive>,
    user_timeout: Option<Duration>,
    bound: Option<Duration>,
) -> Result<(), ConfigError> {
    if let Some(timeout) = user_timeout {
        if timeout < Duration::from_millis(1) || timeout > MAX_DURATION {
            return Err(ConfigError::new(
                "user_timeout",
                "must be at least 1 ms and at most 24 days",
            ));
        }
        if let Some(bound) = bound.filter(|bound| timeout < *bound) {
            let problem = format!(
                "{timeout:?} would let the kernel end a slow but live peer before the \
                 heartbeat's verdict at {bound:?}; make it at least that"
            );
            return Err(ConfigError::new("user_timeout", problem).against(&[
                "heartbeat",
                "retry",
                "missed",
                "beat_max",
            ]));
        }
    }
    keepalive.map_or(Ok(()), |keepalive| keepalive.check(user_timeout))
}

/// Warnings about legal settings that are probably not meant, one sentence each, for a log at
/// start.
pub(crate) fn os_timeout_notes(
    keepalive: Option<&Keepalive>,
    user_timeout: Option<Duration>,
    heartbeat: Option<&Heartbeat>,
) -> Vec<String> {
    let mut notes = Vec::new();
    if let (Some(keepalive), Some(timeout)) = (keepalive, user_timeout)
        && timeout > keepalive.timeout()
    {
        notes.push(format!(
            "user-timeout {timeout:?} overrides keepalive-count: the kernel closes \
             an idle dead connection after {timeout:?}, not {:?}",
            keepalive.timeout()
        ));
    }
    if let (Some(keepalive), Some(heartbeat)) = (keepalive, heartbeat)
        && keepalive.timeout() < heartbeat.timeout()
    {
        notes.push(format!(
            "keepalive closes the connection to a vanished host after {:?}, before the heartbeat does at {:?}",
            keepalive.timeout(),
            heartbeat.timeout()
        ));
    }
    if keepalive.is_none() && heartbeat.is_none() {
        notes.push(
            "both heartbeat and keepalive are off: a peer that vanishes while idle is never closed"
                .into(),
        );
    }
    notes
}

fn check_timeout(field: &'static str, timeout: Option<Duration>) -> Result<(), ConfigError> {
    match timeout {
        Some(timeout) if timeout < Duration::from_millis(1) || timeout > MAX_DURATION => Err(
            ConfigError::new(field, "must be at least 1 ms and at most 24 days"),
        ),
        _ => Ok(()),
    }
}

/// The smallest sensible outbox: a heartbeat word and a short reply must fit.
const MIN_OUTBOX: usize = 256;

impl Config {
    /// Checks every field, alone and against the others. The error names the first field at fault.
    pub fn check(&self) -> Result<(), ConfigError> {
        self.problems().into_iter().next().map_or(Ok(()), Err)
    }

    /// All that is wrong with it.
    pub(crate) fn problems(&self) -> Vec<ConfigError> {
        let limits = &self.limits;
        let heartbeat = self.heartbeat.as_ref();
        let checks = [
            self.check_messages(),
            self.check_outbox(),
            self.check_memory(),
            check_timeout("write_timeout", limits.write_timeout),
            check_timeout("frame_timeout", limits.frame_timeout),
            check_timeout("first_message_timeout", limits.first_message_timeout),
            match limits.max_connections {
                Some(0) => Err(ConfigError::new("max_connections", "must be at least 1")),
                _ => Ok(()),
            },
            heartbeat.map_or(Ok(()), Heartbeat::check),
            self.check_tick(),
            self.login.check(self.framing),
            if self.backlog == 0 || i32::try_from(self.backlog).is_err() {
                let problem = "must be at least 1 and fit 31 bits";
                Err(ConfigError::new("backlog", problem))
            } else {
                Ok(())
            },
            check_os_timeouts(
                self.keepalive.as_ref(),
                self.user_timeout,
                self.longest_timeout(),
            ),
        ];
        checks.into_iter().filter_map(Result::err).collect()
    }

    /// The longest time that any peer may be silent. In raw framing no peer can ask for an interval
    /// of its own.
    fn longest_timeout(&self) -> Option<Duration> {
        self.heartbeat.as_ref().map(|heartbeat| {
            if self.framing == Framing::Raw {
                heartbeat.timeout()
            } else {
                heartbeat.longest_timeout()
            }
        })
    }

    fn check_messages(&self) -> Result<(), ConfigError> {
        let max_message = self.limits.max_message;
        if max_message == 0 || max_message > u32::MAX as usize {
            return Err(ConfigError::new(
                "max_message",
                "must be at least 1 byte and less than 4 GiB",
            ));
        }
        let codec = self.codec()?;
        let Some(goodbye) = &self.goodbye else {
            return Ok(());
        };
        let problem = if goodbye.len() > max_message || codec.encoded_len(&[goodbye]).is_err() {
            "must be one message that the framing can carry, no longer than max_message"
        } else if codec.is_heartbeat_word(goodbye) {
            "is a heartbeat word, which peers would answer"
        } else {
            return Ok(());
        };
        Err(ConfigError::new("goodbye", problem).against(&["framing", "max_message"]))
    }

    fn check_outbox(&self) -> Result<(), ConfigError> {
        if self.limits.max_outbox < MIN_OUTBOX {
            return Err(ConfigError::new(
                "max_outbox",
                format!("must be at least {MIN_OUTBOX} bytes"),
            ));
        }
        Ok(())
    }

    fn check_memory(&self) -> Result<(), ConfigError> {
        let Limits {
            max_outbox,
            max_message,
            max_memory,
            ..
        } = self.limits;
        let largest = max_outbox.saturating_add(max_message);
        if max_memory.is_some_and(|most| most < largest) {
            return Err(ConfigError::new(
                "max_memory",
                format!(
                    "must have room for one peer's max_outbox and max_message: {largest} bytes"
                ),
            )
            .against(&["max_outbox", "max_message"]));
        }
        Ok(())
    }

    fn check_tick(&self) -> Result<(), ConfigError> {
        if !(1..=60_000).contains(&duration_to_ms(self.tick))
            || !self.tick.subsec_nanos().is_multiple_of(1_000_000)
        {
            return Err(ConfigError::new(
                "tick",
                "must be whole milliseconds from 1ms to 60s",
            ));
        }
        let Some(heartbeat) = &self.heartbeat else {
            return Ok(());
        };
        let shortest = self.tick.saturating_mul(2);
        let too_coarse = |what, duration| {
            let tick = self.tick;
            let problem =
                format!("{tick:?} is too coarse for {what} of {duration:?}: at most half of it");
            ConfigError::new("tick", problem)
        };
        if heartbeat.interval < shortest {
            Err(too_coarse("a heartbeat", heartbeat.interval).against(&["heartbeat"]))
        } else if heartbeat.retry() < shortest {
            Err(too_coarse("a retry", heartbeat.retry()).against(&["retry"]))
        } else {
            Ok(())
        }
    }

    /// Warnings about legal settings that are probably not meant, one sentence each.
    pub fn notes(&self) -> Vec<String> {
        let mut notes = os_timeout_notes(
            self.keepalive.as_ref(),
            self.user_timeout,
            self.heartbeat.as_ref(),
        );
        if self.limits.max_outbox / 2 < self.limits.max_message {
            notes.push(format!(
                "max-outbox {} is less than twice max-message {}: \
                 a long message may not fit and close its reader",
                self.limits.max_outbox, self.limits.max_message
            ));
        }
        notes
    }

    /// Takes over the settings that a running server cannot change, and returns the names of those
    /// that differed.
    pub(crate) fn keep_fixed(&mut self, live: &Config) -> Vec<&'static str> {
        let wanted = std::mem::replace(
            self,
            Config {
                framing: live.framing,
                words: live.words.clone(),
                login: Login {
                    mode: live.login.mode,
                    ..self.login.clone()
                },
                tick: live.tick,
                backlog: live.backlog,
                reuse_port: live.reuse_port,
                ..self.clone()
            },
        );
        let fields = [
            ("framing", wanted.framing != live.framing),
            ("words", wanted.words != live.words),
            ("login", wanted.login.mode != live.login.mode),
            ("tick", wanted.tick != live.tick),
            ("backlog", wanted.backlog != live.backlog),
            ("reuse_port", wanted.reuse_port != live.reuse_port),
        ];
        fields
            .into_iter()
            .filter(|(_, differs)| *differs)
            .map(|(field, _)| field)
            .collect()
    }

    pub(crate) fn codec(&self) -> Result<Codec, ConfigError> {
        Codec::new(self.framing, self.words.clone(), self.limits.max_message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field_at_fault(change: impl FnOnce(&mut Config)) -> &'static str {
        let mut config = Config::default();
        change(&mut config);
        config.check().expect_err("refused").field
    }

    const fn secs(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    #[test]
    fn defaults_are_valid_and_have_no_notes() {
        assert_eq!(Config::default().check(), Ok(()));
        assert_eq!(Config::default().notes(), Vec::<String>::new());
    }

    #[test]
    fn each_field_out_of_range_is_named() {
        assert_eq!(
            field_at_fault(|config| config.limits.max_message = 0),
            "max_message"
        );
        assert_eq!(
            field_at_fault(|config| config.limits.max_outbox = 10),
            "max_outbox"
        );
        assert_eq!(
            field_at_fault(|config| config.limits.max_connections = Some(0)),
            "max_connections"
        );
        assert_eq!(
            field_at_fault(|config| config.tick = Duration::from_micros(1500)),
            "tick"
        );
        assert_eq!(field_at_fault(|config| config.tick = secs(3)), "tick");
        assert_eq!(field_at_fault(|config| config.backlog = 0), "backlog");
        assert_eq!(
            field_at_fault(|config| config.words.ping = b"pong".to_vec()),
            "words"
        );
        assert_eq!(
            field_at_fault(|config| config.heartbeat = Some(Heartbeat {
                max_missed: 0,
                ..Heartbeat::default()
            })),
            "missed"
        );
        let instant = Heartbeat {
            interval: Duration::ZERO,
            ..Heartbeat::default()
        };
        assert_eq!(
            field_at_fault(|config| config.heartbeat = Some(instant)),
            "heartbeat"
        );
        let retry = |retry| {
            move |config: &mut Config| {
                let heartbeat = config.heartbeat.as_mut().expect("on by default");
                heartbeat.retry = Some(retry);
            }
        };
        assert_eq!(field_at_fault(retry(Duration::ZERO)), "retry");
        assert_eq!(field_at_fault(retry(Duration::MAX)), "retry");
        let less_than_two_ticks = Duration::from_millis(199);
        assert_eq!(field_at_fault(retry(less_than_two_ticks)), "tick");
        let keepalive = |change: fn(&mut Keepalive)| {
            move |config: &mut Config| {
                change(config.keepalive.as_mut().expect("on by default")) as ()
            }
        };
        assert_eq!(
            field_at_fault(keepalive(
                |keepalive| keepalive.idle = Duration::from_millis(1500)
            )),
            "keepalive_idle"
        );
        assert_eq!(
            field_at_fault(keepalive(|keepalive| keepalive.interval = secs(40_000))),
            "keepalive_interval"
        );
        assert_eq!(
            field_at_fault(keepalive(|keepalive| keepalive.count = 128)),
            "keepalive_count"
        );
    }

    #[test]
    fn timeout_is_the_interval_and_a_retry_for_each_missed_ping() {
        let mut heartbeat = Heartbeat {
            interval: secs(240),
            ..Heartbeat::default()
        };
        assert_eq!(heartbeat.timeout(), secs(960));
        heartbeat.retry = Some(secs(5));
        assert_eq!(heartbeat.timeout(), secs(255));
        heartbeat.retry = Some(Duration::MAX);
        assert_eq!(heartbeat.timeout(), Duration::MAX, "without an overflow");
    }

    #[test]
    fn granted_interval_is_within_its_bounds() {
        let heartbeat = Heartbeat::default();
        let tick = Duration::from_millis(100);
        let granted = |wanted| heartbeat.granted(wanted, tick);
        assert_eq!(granted(secs(240)).interval, secs(240));
        assert_eq!(granted(secs(240)).timeout(), secs(255));
        assert_eq!(granted(secs(3)).timeout(), secs(12), "retry is no longer");
        assert_eq!(granted(Duration::ZERO).interval, secs(1));
        assert_eq!(granted(Duration::MAX).interval, secs(600));
        let coarse = heartbeat.granted(Duration::ZERO, secs(2));
        assert_eq!(coarse.interval, secs(4), "two ticks at least");
    }

    #[test]
    fn login_fields_out_of_range_are_named() {
        let raw = |config: &mut Config| {
            config.framing = Framing::Raw;
            config.login.mode = LoginMode::Trust;
        };
        assert_eq!(field_at_fault(raw), "login");
        assert_eq!(
            field_at_fault(|config| config.login.max_pending = 0),
            "max_pending_logins"
        );
        assert_eq!(
            field_at_fault(|config| config.login.timeout = Duration::ZERO),
            "login_timeout"
        );
        let beat_min = |config: &mut Config| {
            let heartbeat = config.heartbeat.as_mut().expect("on by default");
            heartbeat.beat_min = secs(601);
        };
        assert_eq!(field_at_fault(beat_min), "beat_min");
    }

    #[test]
    fn user_timeout_shorter_than_probes_or_heartbeat_is_rejected() {
        assert_eq!(
            field_at_fault(|config| config.user_timeout = Some(secs(60))),
            "user_timeout"
        );
        let short = |config: &mut Config| {
            config.keepalive = None;
            config.user_timeout = Some(secs(19));
        };
        assert_eq!(field_at_fault(short), "user_timeout");
        assert_eq!(
            field_at_fault(|config| config.user_timeout = Some(Duration::ZERO)),
            "user_timeout"
        );
        let mut config = Config {
            user_timeout: Some(secs(120)),
            ..Config::default()
        };
        let error = config.check().expect_err("shorter than the longest bound");
        assert!(error.problem.contains("615s"), "{error}");
        let heartbeat = config.heartbeat.as_mut().expect("on by default");
        heartbeat.beat_max = secs(60);
        assert_eq!((config.check(), config.notes().len()), (Ok(()), 0));
        config.user_timeout = Some(secs(300));
        assert_eq!((config.check(), config.notes().len()), (Ok(()), 1));
    }

    #[test]
    fn config_without_any_liveness_check_has_a_note() {
        let config = Config {
            heartbeat: None,
            keepalive: None,
            ..Config::default()
        };
        assert!(config.notes()[0].contains("never closed"));
    }
}
