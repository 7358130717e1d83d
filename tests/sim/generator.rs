//! What a seed decides: the options of a run, the behavior of its application, the faults of its
//! kernel, and the plan of each peer.

use std::num::NonZeroU32;
use std::ops::{Range, RangeInclusive};
use std::time::Duration;

use heartline::access_list::{AccessList, Networks};
use heartline::engine::budgets::TurnBudgets;
use heartline::{
    Config, Framing, Heartbeat, Limits, Login, LoginMode, OnDuplicate, OnFull, OnSlow,
};

use crate::app::AppBehavior;
use crate::driver::Budgets;
use crate::origin;
use crate::peer::{Hello, Plan, Talk};
use crate::world::Setup;

/// How large a run is. The dice are the same for all; what one line may cost is not.
pub struct Scale {
    pub peers: usize,
    pub tick_ms: u64,
    intervals_ms: RangeInclusive<u64>,
    /// Always with a heartbeat, and with a kernel that interrupts, takes less, and runs out of
    /// descriptors.
    in_full: bool,
    longest_message: usize,
    spare_outbox: usize,
    spare_memory: usize,
    connections: RangeInclusive<usize>,
    addresses: RangeInclusive<u32>,
    /// The same for all settings of a run, because changing it would change the meaning of bytes
    /// sent before.
    balancers: bool,
    /// The power of two that a wire holds.
    wire: Range<u32>,
    /// Most messages of a peer at once, how often at most it talks, and the power of two of the
    /// pieces in which that arrives.
    bursts: [usize; 3],
    least_talk_ms: u64,
    pieces: Range<u32>,
    /// One in this many has no fault of its own.
    spared: u8,
    least_budget: usize,
    /// Sockets between two readings of a clock that drifts, and its largest drift in milliseconds:
    /// with more connections, the lag that the bounds must allow for would dominate.
    sockets_per_clock_reading: RangeInclusive<u32>,
    drift_ms: u64,
    /// Messages to everybody, which cost as much as there are lines.
    broadcasts: bool,
    /// The same for all settings of a run.
    framing: Framing,
    login: LoginMode,
}

const LOGINS: [LoginMode; 5] = [
    LoginMode::Off,
    LoginMode::Off,
    LoginMode::Optional,
    LoginMode::Required,
    LoginMode::Trust,
];

const FRAMINGS: [Framing; 3] = [Framing::Lines, Framing::Length, Framing::Raw];

impl Scale {
    pub fn of_seconds(rng: &mut fastrand::Rng) -> Self {
        let tick_ms = 1 << rng.u32(0..8);
        let peers = match rng.u8(0..50) {
            0..=24 => rng.usize(1..=4),
            25..=44 => rng.usize(5..=60),
            45..=48 => rng.usize(61..=400),
            _ => rng.usize(401..=3000),
        };
        Scale {
            peers,
            tick_ms,
            intervals_ms: tick_ms * 2..=tick_ms * 31,
            in_full: false,
            longest_message: 8192,
            spare_outbox: 64 * 1024,
            spare_memory: 16 * 1024,
            connections: 1..=100,
            addresses: 1..=20,
            balancers: rng.bool(),
            wire: 6..18,
            bursts: if peers > 400 { [2; 3] } else { [1, 4, 200] },
            least_talk_ms: 1,
            pieces: 3..12,
            spared: 3,
            least_budget: 1,
            sockets_per_clock_reading: 1..=64,
            drift_ms: 2,
            broadcasts: true,
            framing: FRAMINGS[rng.usize(0..3)],
            login: LOGINS[rng.usize(0..LOGINS.len())],
        }
        .with_possible_login()
    }

    /// A heartbeat so long that a million lines can be afforded for hours.
    pub fn of_hours(rng: &mut fastrand::Rng, peers: usize) -> Self {
        Scale {
            peers,
            tick_ms: rng.u64(20..=1000),
            intervals_ms: 10 * 60_000..=20 * 60_000,
            in_full: true,
            longest_message: 512,
            spare_outbox: 2048,
            spare_memory: 64 * peers,
            connections: peers / 10 * 9..=peers,
            addresses: peers as u32 / 20..=peers as u32,
            balancers: rng.bool(),
            wire: 8..13,
            bursts: [1, 2, 4],
            least_talk_ms: 10 * 60_000,
            pieces: 6..12,
            spared: 2,
            least_budget: 16,
            sockets_per_clock_reading: 64..=256,
            drift_ms: 1,
            broadcasts: false,
            framing: FRAMINGS[rng.usize(0..3)],
            // Peers that are to stay may not be denied.
            login: LoginMode::Off,
        }
    }
}

impl Scale {
    /// Raw framing has no handshake.
    fn with_possible_login(mut self) -> Self {
        if self.framing == Framing::Raw {
            self.login = LoginMode::Off;
        }
        self
    }
}

pub fn setup(rng: &mut fastrand::Rng, seed: u64, scale: &Scale) -> Setup {
    let config = config(rng, scale);
    let wild = rng.bool() || scale.in_full;
    let least = scale.least_budget;
    let budgets = Budgets {
        events: rng.usize(least..=256),
        turn: TurnBudgets {
            accepts: rng.usize(least..=128),
            command_work: rng.u32(1..=16),
            read_bytes: rng.usize(1..=64 * 1024),
            checks: rng.usize(least..=256),
            read_work: 1 << rng.u32(0..10),
            // The server's budget is many sockets' worth.
            leftover_work: 1 << rng.u32(6..12),
            fanout_work: 1 << rng.u32(0..12),
            flushes: rng.usize(64..=1024),
            broadcast_flushes: rng.usize(least..=256),
            writes: rng.usize(1..=4),
            reaps: rng.usize(least..=256),
        },
        scratch_bytes: rng.usize(16..=32 * 1024),
        slices: rng.usize(1..=16),
        sockets_per_clock_reading: rng.u32(scale.sockets_per_clock_reading.clone()),
        drift_ms: if wild { rng.u64(0..=scale.drift_ms) } else { 0 },
        unit_ns: 0,
        call_ns: 0,
        faults: if wild { rng.u32(0..=200) } else { 0 },
    };
    let mut rarely = |most: u32| if rng.bool() { 0 } else { rng.u32(0..=most) };
    // Replies alone hardly ever fill the memory: peers that do not read are not read from.
    let crowds_memory = config.limits.max_memory.is_some() && scale.broadcasts;
    let behavior = AppBehavior {
        broadcast: if crowds_memory {
            200
        } else {
            rarely(if scale.broadcasts { 10 } else { 0 })
        },
        close_after_flush: rarely(10),
        close_now: rarely(10),
        pause: rarely(100),
        resume_another: rarely(100),
        send_when_empty: rarely(500),
        broadcast_on_close: rarely(if scale.broadcasts { 20 } else { 0 }),
        longest_pause_ms: rarely(1000).into(),
        send_to: rarely(200),
        publish: rarely(if scale.broadcasts { 20 } else { 0 }),
        set_deadline: rarely(200),
        longest_decision_ms: rarely(1000).into(),
    };
    Setup {
        seed,
        config,
        budgets,
        behavior,
        inbound_capacity: 1 << rng.u32(scale.wire.start.max(8)..scale.wire.end),
        outbound_capacity: 1
            << if crowds_memory {
                6
            } else {
                rng.u32(scale.wire.clone())
            },
        link: None,
        addresses: rng.u32(scale.addresses.clone()),
        balancers: scale.balancers,
    }
}

pub fn config(rng: &mut fastrand::Rng, scale: &Scale) -> Config {
    let framing = scale.framing;
    let interval_ms = rng.u64(scale.intervals_ms.clone());
    let retry_ms = rng
        .bool()
        .then(|| rng.u64(scale.tick_ms * 2..=interval_ms.max(scale.tick_ms * 31)));
    let heartbeat = Heartbeat {
        interval: Duration::from_millis(interval_ms),
        retry: retry_ms.map(Duration::from_millis),
        max_missed: rng.u8(1..=4),
        send_pings: rng.u8(0..4) > 0,
        beat_min: Duration::from_millis(2 + rng.u64(0..=interval_ms)),
        beat_max: Duration::from_millis(2 + interval_ms * rng.u64(1..=3)),
    };
    let max_message = rng.usize(64..=scale.longest_message);
    // Room for one reply above the throttle mark, but not always.
    let max_outbox = if rng.u8(0..8) > 0 {
        256 + 2 * max_message + rng.usize(0..=scale.spare_outbox)
    } else {
        rng.usize(256..=max_message + 256)
    };
    let max_memory = max_outbox + max_message + rng.usize(0..=scale.spare_memory);
    let most_per_address = scale
        .peers
        .div_ceil(*scale.addresses.start() as usize)
        .clamp(1, 20);
    Config {
        framing,
        heartbeat: (rng.u8(0..10) > 0 || scale.in_full).then_some(heartbeat),
        tick: Duration::from_millis(scale.tick_ms),
        limits: Limits {
            max_message,
            max_outbox,
            // In raw framing a dropped message cannot be identified.
            on_slow: if rng.u8(0..3) > 0 || framing == Framing::Raw {
                OnSlow::Close
            } else {
                OnSlow::Drop
            },
            max_memory: (rng.u8(0..3) == 0).then_some(max_memory),
            write_timeout: timeout(rng, interval_ms * 6),
            frame_timeout: timeout(rng, interval_ms * 6),
            first_message_timeout: timeout(rng, interval_ms * 6),
            max_message_rate: NonZeroU32::new(if rng.u8(0..4) == 0 {
                1 << rng.u32(0..9)
            } else {
                0
            }),
            max_connections: (rng.u8(0..6) == 0).then(|| rng.usize(scale.connections.clone())),
            per_ip_prefix_v6: 128,
            max_connections_per_ip: if rng.u8(0..6) == 0 {
                rng.usize(1..=most_per_address)
            } else {
                0
            },
            on_full: if rng.bool() {
                OnFull::Refuse
            } else {
                OnFull::EvictIdlest
            },
        },
        login: login(rng, scale.login, interval_ms),
        access: if rng.u8(0..3) == 0 {
            origin::access(rng, *scale.addresses.end())
        } else {
            AccessList::default()
        },
        proxies: if scale.balancers {
            origin::networks(&[origin::BALANCERS.to_string()])
        } else {
            Networks::default()
        },
        ..Config::default()
    }
}

fn login(rng: &mut fastrand::Rng, mode: LoginMode, interval_ms: u64) -> Login {
    let duplicates = [
        OnDuplicate::Replace,
        OnDuplicate::Refuse,
        OnDuplicate::Allow,
    ];
    Login {
        mode,
        on_duplicate: duplicates[rng.usize(0..3)],
        timeout: Duration::from_millis(rng.u64(1..=interval_ms * 6)),
        max_pending: if rng.bool() { rng.usize(1..=8) } else { 1000 },
        max_failures: if rng.bool() { 0 } else { rng.u32(1..=20) },
    }
}

/// Few names, so that they are taken twice.
fn hello(rng: &mut fastrand::Rng, config: &Config, peers: usize, interval_ms: u64) -> Hello {
    let tokens = ["good", "good", "good", "bad", "later", "never"];
    let is_off = config.login.mode == LoginMode::Off;
    let names = 1 + peers / 3;
    Hello {
        name: (rng.u8(0..16) > 0).then(|| format!("n{}", rng.usize(0..names))),
        token: (!is_off || rng.u8(0..16) == 0).then(|| tokens[rng.usize(0..tokens.len())]),
        beat_ms: rng.bool().then(|| rng.u64(0..=interval_ms * 4)),
        is_broken: rng.u8(0..32) == 0,
    }
}

fn timeout(rng: &mut fastrand::Rng, most_ms: u64) -> Option<Duration> {
    rng.bool()
        .then(|| Duration::from_millis(rng.u64(1..=most_ms)))
}

pub fn plan(rng: &mut fastrand::Rng, config: &Config, scale: &Scale) -> Plan {
    let Rhythm {
        interval_ms,
        retry_ms,
        bound_ms,
    } = rhythm(config);
    let burst = scale.bursts[rng.usize(0..3)];
    let talk = Talk {
        every_ms: rng.u64(scale.least_talk_ms..=bound_ms * 2),
        burst,
        longest: config.limits.max_message,
    };
    let slow = rng.u8(0..8) == 0;
    // In a run at full size there are enough peers without faults to check.
    let sheltered = scale.in_full && rng.u8(0..4) == 0;
    let says_hello = config.framing != Framing::Raw
        && rng.u8(0..8)
            < if config.login.mode == LoginMode::Off {
                2
            } else {
                7
            };
    let hello = says_hello.then(|| hello(rng, config, scale.peers, interval_ms));
    let beat_ms = (rng.bool() || sheltered).then(|| rng.u64(interval_ms / 2..=bound_ms - 1).max(1));
    Plan {
        talk: rng.bool().then_some(talk),
        hello: hello.filter(|_| !sheltered),
        beat_ms,
        answer_ms: rng.bool().then(|| rng.u64(0..=retry_ms / 2)),
        piece: if rng.bool() {
            usize::MAX
        } else {
            1 << rng.u32(scale.pieces.clone())
        },
        piece_gap_ms: rng.u64(0..=retry_ms / 4).min(20),
        read_bytes: if slow { rng.u64(16..=4096) } else { u64::MAX },
        read_delay_ms: if slow { rng.u64(0..=retry_ms / 2) } else { 0 },
        fault_every_ms: (rng.u8(0..scale.spared) > 0 && !sheltered).then(|| bound_ms * 4),
        reconnect_ms: rng.bool().then(|| rng.u64(bound_ms / 8 + 1..=bound_ms)),
        sheltered,
    }
}

/// The times of a heartbeat.
pub struct Rhythm {
    pub interval_ms: u64,
    pub retry_ms: u64,
    pub bound_ms: u64,
}

/// The times of the heartbeat; without one, what takes their place in the calendar of a run.
pub fn rhythm(config: &Config) -> Rhythm {
    let none = Rhythm {
        interval_ms: 500,
        retry_ms: 500,
        bound_ms: 2000,
    };
    config.heartbeat.as_ref().map_or(none, |heartbeat| Rhythm {
        interval_ms: heartbeat.interval.as_millis() as u64,
        retry_ms: heartbeat.retry().as_millis() as u64,
        bound_ms: heartbeat.timeout().as_millis() as u64,
    })
}
