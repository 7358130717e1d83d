//! From the flags of a scenario to a plan.

use std::time::Duration;

use clap::Parser;

use super::args::{
    BeatArgs, CommonArgs, DeadArgs, EchoArgs, HoldArgs, PushArgs, StormArgs, WireArgs,
};
use super::plan::{Group, Pace, Plan, Ports, Role, WaitFor};
use super::process::ephemeral_ports;
use super::server::has_flag;
use super::values::{PingAnswer, Ramp};
use crate::error::{ConfigError, Error};
use crate::settings::ServeArgs;

/// A measurement to be made.
pub(super) struct Job {
    pub(super) scenario: &'static str,
    pub(super) common: CommonArgs,
    /// What all workers do together; address and sources are filled in when they are known.
    pub(super) plan: Plan,
    /// Options of `heartline serve`, should a server be started.
    pub(super) serve: Vec<String>,
    /// The group whose messages are measured.
    pub(super) primary: usize,
    /// What one of those is called.
    pub(super) unit: &'static str,
    /// In how many steps connections are opened; the server's memory is sampled after each.
    pub(super) steps: u32,
    /// From the last connection to the beginning of the measurement.
    pub(super) before: Duration,
}

/// How late after the end a reply may arrive.
const GRACE: Duration = Duration::from_secs(2);
/// The last answer of a storm may take so long.
const STORM_GRACE: Duration = Duration::from_secs(30);
/// The most that closed loops may have under way on one connection.
const MAX_PENDING_BYTES: usize = 64 * 1024 * 1024;
/// The harness's own server sends no pings while the load does: answers to both would be counted as
/// one.
const NOT_ASKING: &[(&str, &str)] = &[("--heartbeat", "60s")];

impl Job {
    pub(super) fn hold(args: HoldArgs) -> Result<Self, Error> {
        let role = args
            .beat
            .0
            .map_or(Role::Quiet, |every| beating(every, args.duration));
        let groups = vec![args.common.wire.beating("held", args.connections, role)];
        Job {
            steps: 3,
            ..Job::new(
                "hold",
                "heartbeat",
                args.common,
                groups,
                args.duration,
                GRACE,
                &[],
            )?
        }
        .checked()
    }

    pub(super) fn echo(args: EchoArgs) -> Result<Self, Error> {
        let wire = &args.common.wire;
        let message = wire.sized(args.size.0);
        if message.len().saturating_mul(args.depth as usize) > MAX_PENDING_BYTES {
            return Err(ConfigError::new(
                "depth",
                "more than 64 MiB would be under way on each connection",
            )
            .into());
        }
        let active = Group {
            name: "active".to_string(),
            connections: args.active,
            role: Role::Loop { depth: args.depth },
            hello: wire.hello(),
            message,
            expect: wire.expect.clone(),
        };
        let mut groups = vec![active];
        if args.idle > 0 {
            let role = args
                .beat
                .0
                .map_or(Role::Quiet, |every| beating(every, args.duration));
            groups.push(wire.beating("idle", args.idle, role));
        }
        Job::new(
            "echo",
            "echo",
            args.common,
            groups,
            args.duration,
            GRACE,
            NOT_ASKING,
        )?
        .checked()
    }

    pub(super) fn beat(args: BeatArgs) -> Result<Self, Error> {
        let groups = vec![args.common.wire.beating(
            "beating",
            args.connections,
            beating(args.beat, args.duration),
        )];
        Job::new(
            "beat",
            "heartbeat",
            args.common,
            groups,
            args.duration,
            GRACE,
            NOT_ASKING,
        )?
        .checked()
    }

    pub(super) fn storm(args: StormArgs) -> Result<Self, Error> {
        let mut common = args.common;
        common.ramp = common.ramp.or(Some(Ramp { per_s: None }));
        let once = Role::Paced(Pace {
            spread: false,
            every_ns: u64::MAX / 4,
            until_ns: 1,
            replies: true,
        });
        let groups = vec![common.wire.beating("pinging", args.connections, once)];
        Job::new(
            "storm",
            "ping",
            common,
            groups,
            Duration::from_nanos(1),
            STORM_GRACE,
            NOT_ASKING,
        )?
        .checked()
    }

    pub(super) fn push(args: PushArgs) -> Result<Self, Error> {
        let wire = &args.common.wire;
        let every_ns = nanos(args.every);
        let duration = args
            .every
            .saturating_mul(args.messages - 1)
            .saturating_add(Duration::from_nanos(1));
        let message = wire.sized(args.size.0);
        let role = Role::Paced(Pace {
            spread: false,
            every_ns,
            until_ns: nanos(duration),
            replies: false,
        });
        // Without a hello: some servers do not let a subscriber publish.
        let speaker = Group {
            name: "speaking".to_string(),
            connections: 1,
            role,
            hello: Vec::new(),
            message,
            expect: wire.expect.clone(),
        };
        let listeners = wire.beating("listening", args.connections, Role::Listen);
        let options = &[("--app", "broadcast"), ("--heartbeat", "60s")];
        let mut job = Job::new(
            "push",
            "delivery",
            args.common,
            vec![speaker, listeners],
            duration,
            STORM_GRACE,
            options,
        )?;
        job.primary = 1;
        (job.plan.wait_for, job.plan.pushes, job.plan.push_every_ns) =
            (WaitFor::Pushes, args.messages, every_ns);
        job.checked()
    }

    pub(super) fn dead(args: DeadArgs) -> Result<Self, Error> {
        let wire = &args.common.wire;
        let mut groups = vec![wire.beating("falling silent", args.connections, Role::Mute)];
        if args.alive > 0 {
            // Until the end, whenever that is.
            let role = args.beat.0.map_or(Role::Quiet, |every| {
                beating(every, Duration::from_nanos(u64::MAX / 4))
            });
            groups.push(wire.beating("alive", args.alive, role));
        }
        // A timeout of four seconds: long enough to tell late from early, short enough to wait for.
        let options = &[("--heartbeat", "1s"), ("--missed", "3")];
        let mut job = Job::new(
            "dead",
            "eviction",
            args.common,
            groups,
            Duration::ZERO,
            Duration::ZERO,
            options,
        )?;
        let own = if job.common.addr.is_none() {
            bound(&job.serve)?
        } else {
            None
        };
        let bound = args.bound.or(own);
        let wait = bound.map_or(Duration::from_secs(60), |bound| {
            bound.saturating_mul(3) / 2 + Duration::from_secs(5)
        });
        job.before = args.before;
        job.plan.wait_for = WaitFor::Closes;
        job.plan.bound_ns = bound.map(nanos);
        job.plan.grace_ns = nanos(args.duration.unwrap_or(wait));
        job.checked()
    }

    fn new(
        scenario: &'static str,
        unit: &'static str,
        common: CommonArgs,
        groups: Vec<Group>,
        duration: Duration,
        grace: Duration,
        options: &[(&str, &str)],
    ) -> Result<Self, Error> {
        let mut serve = common.serve.clone();
        for (flag, value) in options
            .iter()
            .filter(|(flag, _)| !has_flag(&common.serve, flag))
        {
            serve.extend([flag.to_string(), value.to_string()]);
        }
        let (first, last) = ephemeral_ports();
        let plan = Plan {
            // Replaced before any dial.
            addr: ([0, 0, 0, 0], 0).into(),
            sources: Vec::new(),
            more_sources: false,
            ports: Ports {
                first,
                last,
                step: 1,
            },
            ramp_per_s: common
                .ramp
                .unwrap_or(Ramp {
                    per_s: Some(5000.0),
                })
                .per_s,
            seed: common.seed,
            answer: common.wire.answer(),
            groups,
            wait_for: WaitFor::Replies,
            duration_ns: nanos(duration),
            grace_ns: nanos(grace),
            bound_ns: None,
            pushes: 0,
            push_every_ns: 0,
        };
        Ok(Job {
            scenario,
            common,
            plan,
            serve,
            primary: 0,
            unit,
            steps: 1,
            before: Duration::ZERO,
        })
    }

    /// Checks the options of the server now, not when it is started.
    fn checked(self) -> Result<Self, Error> {
        if self.common.addr.is_none() {
            serve_args(&self.serve).config().check()?;
        }
        Ok(self)
    }
}

impl WireArgs {
    fn answer(&self) -> Option<PingAnswer> {
        match &self.answer {
            Some(answer) => answer.0.clone(),
            None => self.send.is_none().then(PingAnswer::heartline),
        }
    }

    fn hello(&self) -> Vec<u8> {
        self.hello
            .as_ref()
            .map(|hello| hello.0.clone())
            .unwrap_or_default()
    }

    /// A group whose messages are heartbeats.
    fn beating(&self, name: &str, connections: u32, role: Role) -> Group {
        let message = self
            .send
            .as_ref()
            .map_or(b"ping\n".to_vec(), |send| send.0.clone());
        Group {
            name: name.to_string(),
            connections,
            role,
            hello: self.hello(),
            message,
            expect: self.expect.clone(),
        }
    }

    /// The message, or a line of this many bytes.
    fn sized(&self, size: usize) -> Vec<u8> {
        let line = || [vec![b'x'; size - 1], b"\n".to_vec()].concat();
        self.send.as_ref().map_or_else(line, |send| send.0.clone())
    }
}

/// Heartbeats at an even pace, each connection beginning at a random instant of the first interval.
fn beating(every: Duration, until: Duration) -> Role {
    Role::Paced(Pace {
        spread: true,
        every_ns: nanos(every),
        until_ns: nanos(until),
        replies: true,
    })
}

/// A duration from a flag is at most a year, or was clamped.
fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX / 4)
}

#[derive(Parser)]
#[command(name = "heartline bench ... --", no_binary_name = true)]
struct OwnServe {
    #[command(flatten)]
    serve: ServeArgs,
}

/// Ends the process with clap's own message if they are wrong.
fn serve_args(options: &[String]) -> ServeArgs {
    OwnServe::try_parse_from(options)
        .unwrap_or_else(|error| error.exit())
        .serve
}

/// The silence after which a server with these options closes, if it does.
fn bound(options: &[String]) -> Result<Option<Duration>, Error> {
    let config = serve_args(options).config();
    config.check()?;
    Ok(config.heartbeat.map(|heartbeat| heartbeat.timeout()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::values::Expect;

    #[derive(Parser)]
    struct Dead {
        #[command(flatten)]
        dead: DeadArgs,
    }

    fn dead(args: &[&str]) -> Job {
        Job::dead(Dead::parse_from([&["dead"], args].concat()).dead).expect("good flags")
    }

    #[test]
    fn dead_scenario_uses_the_servers_timeout() {
        assert_eq!(dead(&[]).plan.bound_ns, Some(4_000_000_000));
        assert_eq!(
            dead(&["--", "--heartbeat", "2s", "--missed=1"])
                .plan
                .bound_ns,
            Some(4_000_000_000)
        );
        assert_eq!(dead(&["--", "--heartbeat", "off"]).plan.bound_ns, None);
        assert_eq!(dead(&["127.0.0.1:1"]).plan.bound_ns, None);
        assert_eq!(
            dead(&["127.0.0.1:1", "--bound", "7s"]).plan.bound_ns,
            Some(7_000_000_000)
        );
    }

    #[test]
    fn bench_answers_pings_of_line_protocols_only() {
        assert_eq!(dead(&[]).plan.answer, Some(PingAnswer::heartline()));
        assert_eq!(dead(&["--send", "PING\\r\\n"]).plan.answer, None);
        assert!(
            dead(&["--send", "PING\\r\\n", "--answer", "PING\\r\\n=PONG\\r\\n"])
                .plan
                .answer
                .is_some()
        );
        assert_eq!(dead(&["--answer", "off"]).plan.answer, None);
        assert_eq!(dead(&[]).plan.groups[0].expect, Expect::Lines(1));
    }
}
