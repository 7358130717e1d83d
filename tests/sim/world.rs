//! Virtual time, and everything that happens in it: the calendar of the peers, and the turns of the
//! server between their doings.

use std::collections::BTreeMap;
use std::rc::Rc;

use heartline::time::duration_to_ms;
use heartline::{Close, CloseReason, Config, ConnId, Framing};

use crate::app::{App, AppBehavior};
use crate::driver::{Budgets, Command, SimServer};
use crate::ledger::encode;
use crate::net::{Link, Net};
use crate::origin::{Header, Origin};
use crate::peer::{Fault, Peer, Plan, pattern};

/// Everything that a run depends on but the peers.
#[derive(Clone, Debug)]
pub struct Setup {
    pub seed: u64,
    pub config: Config,
    pub budgets: Budgets,
    pub behavior: AppBehavior,
    /// Buffers of each connection's wire, to the server and to the peer.
    pub inbound_capacity: usize,
    pub outbound_capacity: usize,
    /// The network between the server and peers that connect from now on.
    pub link: Option<Link>,
    /// Addresses that peers come from.
    pub addresses: u32,
    /// Whether balancers bring half of them.
    pub balancers: bool,
}

impl Setup {
    /// No faults, no surprises, and the server's own constants.
    pub fn calm(config: Config) -> Self {
        Setup {
            seed: 0,
            config,
            budgets: Budgets::default(),
            behavior: AppBehavior::default(),
            inbound_capacity: 256 * 1024,
            outbound_capacity: 256 * 1024,
            link: None,
            addresses: 1,
            balancers: false,
        }
    }
}

/// An action on the calendar.
pub enum Action {
    Connect(Plan),
    Talk(usize),
    Beat(usize),
    Answer(usize),
    Deliver(usize),
    Read(usize),
    /// A millisecond of a link.
    Transmit(usize),
    /// Something at random befalls this peer, and will again.
    Chance(usize),
    Inject(usize, Fault),
    /// Most peers vanish in the same instant.
    Blackout,
    /// A quarter of the peers is cut off for this long, and then everything sent meanwhile arrives.
    Split(u64),
    Heal(Vec<usize>),
    /// The server's process does not run for so long.
    Freeze(u64),
    /// The poll returns for no reason.
    Wake,
    Command(Command),
}

pub struct World {
    pub setup: Setup,
    pub net: Net,
    pub app: App,
    pub driver: SimServer,
    pub peers: Vec<Peer>,
    rng: fastrand::Rng,
    pattern: Rc<[u8]>,
    calendar: BTreeMap<(u64, u64), Action>,
    scheduled: u64,
    /// When the server's poll returns by itself; `None` for never.
    server_wakes_at: Option<u64>,
    busy_until: u64,
    /// Turns without any effect in this very millisecond.
    idle_turns: usize,
    /// By how many of the wheel's horizons the timers were late when they began.
    horizons_behind: usize,
    last_turn_ms: u64,
    pub turns: u64,
    /// The turn in which all connections are checked again: seldom, if there are many.
    next_roll_call: u64,
    pub talking: bool,
}

impl World {
    pub fn new(setup: Setup) -> Self {
        let mut rng = fastrand::Rng::with_seed(setup.seed ^ 0x5eed);
        World {
            net: Net::default(),
            app: App::new(setup.config.framing, setup.behavior.clone(), rng.u64(..)),
            driver: SimServer::new(&setup.config, setup.budgets.clone(), rng.u64(..)),
            peers: Vec::new(),
            pattern: pattern(&mut rng),
            rng,
            calendar: BTreeMap::new(),
            scheduled: 0,
            server_wakes_at: None,
            busy_until: 0,
            idle_turns: 0,
            horizons_behind: 0,
            last_turn_ms: 0,
            turns: 0,
            next_roll_call: 0,
            talking: true,
            setup,
        }
    }

    pub fn now_ms(&self) -> u64 {
        self.net.now_ms
    }

    /// Puts an action on the calendar; those of one instant happen in the order in which they were
    /// put there.
    pub fn at(&mut self, at_ms: u64, action: Action) {
        self.scheduled += 1;
        self.calendar.insert((at_ms, self.scheduled), action);
    }

    fn after(&mut self, delay_ms: u64, action: Action) {
        self.at(self.net.now_ms + delay_ms, action);
    }

    pub fn run_until(&mut self, end_ms: u64) {
        while self.step(end_ms) {}
        self.net.now_ms = self.net.now_ms.max(end_ms);
        self.driver.oracle.assert_counters_add_up(
            self.driver.engine.stats(),
            &self.app,
            self.driver.engine.connections(),
        );
    }

    /// Moves to the next instant with an action, and runs it. `false` if that is not before
    /// `end_ms`.
    fn step(&mut self, end_ms: u64) -> bool {
        let action_at = self
            .calendar
            .first_key_value()
            .map(|((at_ms, _), _)| *at_ms);
        let server_at = if self.net.has_events() {
            Some(self.net.now_ms)
        } else {
            self.server_wakes_at
        };
        let server_at = server_at.map(|at_ms| at_ms.max(self.busy_until));
        let Some(at_ms) = action_at
            .into_iter()
            .chain(server_at)
            .min()
            .map(|at_ms| at_ms.max(self.net.now_ms))
            .filter(|at_ms| *at_ms < end_ms)
        else {
            return false;
        };
        self.net.now_ms = at_ms;
        while let Some(entry) = self.calendar.first_entry()
            && entry.key().0 <= self.net.now_ms
        {
            let action = entry.remove();
            self.act(action);
        }
        let due = self.net.has_events()
            || self
                .server_wakes_at
                .is_some_and(|at_ms| at_ms <= self.net.now_ms);
        if due && self.busy_until <= self.net.now_ms {
            self.turn();
        }
        true
    }

    fn turn(&mut self) {
        let began_ms = self.net.now_ms;
        let busy = self.driver.turn(&mut self.net, &mut self.app);
        self.turns += 1;
        if busy || began_ms > self.last_turn_ms {
            let behind_ms = self
                .driver
                .engine
                .poll_timeout()
                .map_or(0, |due| self.driver.now.ms_since(due));
            (self.idle_turns, self.horizons_behind) =
                (0, (behind_ms / self.driver.horizon_ms()) as usize);
        } else {
            self.idle_turns += 1;
        }
        self.last_turn_ms = began_ms;
        // After a lag beyond the wheel's horizon, checks that are due later come once per horizon.
        let checks = self.driver.engine.connections() / self.setup.budgets.turn.checks;
        assert!(
            self.idle_turns <= 8 + (4 + self.horizons_behind) * checks,
            "the loop spins at {began_ms} ms"
        );

        let wait_ms = self.driver.next_wait_ms();
        assert!(
            wait_ms.is_none() || self.driver.engine.connections() > 0 || wait_ms == Some(0),
            "a timer without connections"
        );
        self.server_wakes_at = wait_ms.map(|wait_ms| self.net.now_ms + wait_ms);
        if self.turns >= self.next_roll_call || self.driver.engine.connections() < 16 {
            self.next_roll_call = self.turns + 256.max(self.peers.len() as u64 / 8);
            self.driver.oracle.assert_nobody_overdue(self.driver.now);
            self.assert_no_deadline_missed();
        }
        for line in std::mem::take(&mut self.net.news) {
            self.notify_peer(line);
        }
        for line in std::mem::take(&mut self.net.roomy) {
            self.deliver_later(line, 1);
        }
        for (delay_ms, id, accepts) in std::mem::take(&mut self.app.decisions) {
            self.after(delay_ms, Action::Command(Command::Login(id, accepts)));
        }
        for (pause_ms, id) in std::mem::take(&mut self.app.pauses) {
            self.after(pause_ms, Action::Command(Command::Resume(id)));
        }
    }

    /// Deadlines of the application come within a tick and the lag of the loop.
    fn assert_no_deadline_missed(&self) {
        let engine = &self.driver.engine;
        let tick_ms = duration_to_ms(self.driver.config.tick);
        let late_ms = tick_ms + 1 + self.driver.oracle.lag_ms();
        for (id, at) in &self.app.deadlines {
            assert!(
                !engine.is_open(*id) || self.driver.now <= at.plus_ms(late_ms),
                "{id} was to be called at {at}, and it is {}",
                self.driver.now
            );
        }
    }

    /// The link carries what the server wrote, for as long as there is something.
    fn transmit(&mut self, line: usize) {
        self.peers[line].transmission_due = false;
        if self.peers[line].cut_off {
            return;
        }
        self.net.transmit(line);
        self.notify_peer(line);
    }

    /// The peer learns of what the server wrote, or that it closed.
    fn notify_peer(&mut self, line: usize) {
        if self.net.is_in_flight(line) && !self.peers[line].transmission_due {
            self.peers[line].transmission_due = true;
            self.after(1, Action::Transmit(line));
        }
        let peer = &mut self.peers[line];
        if !peer.reading_due {
            peer.reading_due = true;
            let delay_ms = peer.plan.read_delay_ms;
            self.after(delay_ms, Action::Read(line));
        }
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::Connect(plan) if self.talking => drop(self.connect(plan)),
            Action::Connect(_) => {}
            Action::Talk(line) => self.talk(line),
            Action::Beat(line) => self.beat(line),
            Action::Answer(line) => {
                if self.peers[line].speaks() {
                    self.peers[line].heartbeat(b"pong");
                    self.deliver_later(line, 0);
                }
            }
            Action::Deliver(line) => self.deliver(line),
            Action::Read(line) => self.read(line),
            Action::Transmit(line) => self.transmit(line),
            Action::Chance(line) => self.chance(line),
            Action::Inject(line, fault) => self.inject(line, fault),
            Action::Blackout => {
                for line in 0..self.peers.len() {
                    if !self.peers[line].plan.sheltered && self.rng.u8(0..10) > 0 {
                        self.inject(line, Fault::Vanish);
                    }
                }
            }
            Action::Split(ms) => self.split(ms),
            Action::Heal(lines) => {
                for line in lines {
                    self.peers[line].cut_off = false;
                    self.deliver_later(line, 0);
                    self.notify_peer(line);
                }
            }
            Action::Freeze(ms) => self.busy_until = self.busy_until.max(self.net.now_ms + ms),
            Action::Wake => self.server_wakes_at = Some(self.net.now_ms),
            Action::Command(command) => {
                self.driver.commands.push_back(command);
                self.server_wakes_at = Some(self.net.now_ms);
            }
        }
    }

    fn split(&mut self, ms: u64) {
        let mut lines = Vec::new();
        for (line, peer) in self.peers.iter_mut().enumerate() {
            if !peer.cut_off && !peer.over && !peer.plan.sheltered && self.rng.u8(0..4) == 0 {
                (peer.cut_off, peer.ever_cut_off) = (true, true);
                lines.push(line);
            }
        }
        self.app
            .trace
            .note("split", self.net.now_ms, &[lines.len() as u64]);
        self.after(ms, Action::Heal(lines));
    }

    pub fn connect(&mut self, plan: Plan) -> usize {
        let Setup {
            inbound_capacity,
            outbound_capacity,
            link,
            ..
        } = self.setup;
        let line = self.net.connect(inbound_capacity, outbound_capacity, link);
        let (origin, first) =
            Origin::draw(&mut self.rng, self.setup.addresses, self.setup.balancers);
        let plan = if origin.header == Header::Torn {
            Plan {
                reconnect_ms: plan.reconnect_ms,
                ..Plan::silent()
            }
        } else {
            plan
        };
        let mut peer = Peer::new(
            plan.clone(),
            self.setup.config.framing,
            &self.pattern,
            self.rng.u64(..),
        );
        let wanted_ms = plan.hello.as_ref().and_then(|hello| hello.beat_ms);
        self.driver.oracle.add_line(&origin, wanted_ms);
        if let Some(talk) = &plan.talk {
            let delay_ms = peer.rng.u64(0..=talk.every_ms);
            self.after(delay_ms, Action::Talk(line));
        }
        if let Some(beat_ms) = plan.beat_ms {
            let delay_ms = peer.rng.u64(0..=beat_ms);
            self.after(delay_ms, Action::Beat(line));
        }
        if let Some(fault_every_ms) = plan.fault_every_ms {
            let delay_ms = peer.rng.u64(0..=fault_every_ms);
            self.after(delay_ms, Action::Chance(line));
        }
        peer.unsent = first;
        let header = origin.header;
        self.app.add_line(origin, plan.hello.clone());
        self.peers.push(peer);
        self.send_proxy_header(line, header);
        self.say_hello(line);
        line
    }

    /// The first message, unless another one is on its way.
    fn say_hello(&mut self, line: usize) {
        let books = &mut self.app.lines[line];
        let Some(hello) = books.hello.take_if(|_| books.asked.is_complete()) else {
            books.hello = None;
            return;
        };
        let framing = self.setup.config.framing;
        let crlf = self.rng.bool();
        self.peers[line]
            .unsent
            .extend(encode(framing, &hello.text(), crlf));
        books.hello = Some(hello);
        self.deliver_later(line, 0);
    }

    /// Bytes that come before everything planned.
    fn send_proxy_header(&mut self, line: usize, header: Header) {
        match header {
            Header::None
                if self.setup.balancers
                    && self.setup.config.framing == Framing::Lines
                    && self.rng.u8(0..16) == 0 =>
            {
                // From an address that is no balancer's, a header is a message.
                let lie: Rc<[u8]> = b"PROXY TCP4 10.66.66.66 10.9.9.9 1 443".as_slice().into();
                self.peers[line]
                    .unsent
                    .extend(encode(Framing::Lines, &lie, true));
                self.app.lines[line].asked.push(&lie);
                self.deliver_later(line, 0);
            }
            Header::None => {}
            header => {
                let delay_ms = if self.rng.u8(0..8) == 0 {
                    self.rng.u64(0..=12_000)
                } else {
                    0
                };
                self.deliver_later(line, delay_ms);
                if header == Header::Torn && self.rng.bool() {
                    let delay_ms = self.rng.u64(0..=12_000);
                    self.after(delay_ms, Action::Inject(line, Fault::HalfClose));
                }
            }
        }
    }

    /// The peer sends this many messages at once.
    pub fn say(&mut self, line: usize, messages: usize, longest: usize) {
        for _ in 0..messages {
            let message = self.peers[line].say(longest);
            self.app.lines[line].asked.push(&message);
        }
        self.deliver_later(line, 0);
    }

    fn talk(&mut self, line: usize) {
        let peer = &mut self.peers[line];
        if !peer.speaks() || !self.talking {
            return;
        }
        // A peer with unsent bytes sends no further messages.
        if peer.unsent.len() < 64 * 1024 {
            for message in peer.talk(self.driver.config.limits.max_message) {
                self.app.lines[line].asked.push(&message);
            }
        }
        let every_ms = self.peers[line]
            .plan
            .talk
            .as_ref()
            .map_or(0, |talk| talk.every_ms);
        let delay_ms = self.peers[line].rng.u64(1..=every_ms.max(1));
        self.after(delay_ms, Action::Talk(line));
        self.deliver_later(line, 0);
    }

    fn beat(&mut self, line: usize) {
        let peer = &mut self.peers[line];
        let Some(beat_ms) = peer.plan.beat_ms.filter(|_| peer.speaks()) else {
            return;
        };
        if peer.unsent.len() < 64 * 1024 {
            peer.heartbeat(b"ping");
        }
        self.after(beat_ms, Action::Beat(line));
        self.deliver_later(line, 0);
    }

    fn deliver_later(&mut self, line: usize, delay_ms: u64) {
        if !self.peers[line].delivery_due {
            self.peers[line].delivery_due = true;
            self.after(delay_ms, Action::Deliver(line));
        }
    }

    fn deliver(&mut self, line: usize) {
        let peer = &mut self.peers[line];
        peer.delivery_due = false;
        if peer.vanished || peer.over || peer.cut_off {
            return;
        }
        let piece = peer.rng.usize(1..=peer.plan.piece).min(peer.unsent.len());
        let n = self.net.deliver(line, &peer.unsent[..piece]);
        peer.unsent.drain(..n);
        if !peer.unsent.is_empty() {
            // Into a full buffer it continues when there is room: see turn().
            if n > 0 {
                let gap_ms = peer.rng.u64(0..=peer.plan.piece_gap_ms);
                self.deliver_later(line, gap_ms);
            }
        } else if peer.closing && !peer.fin_sent {
            peer.fin_sent = true;
            self.net.shut(line);
        }
    }

    fn read(&mut self, line: usize) {
        let peer = &mut self.peers[line];
        peer.reading_due = false;
        if !peer.reading || peer.vanished || peer.cut_off {
            return;
        }
        let received = self.net.receive(line, peer.plan.read_bytes);
        let tap = self.driver.oracle.tap(line);
        let mut pings = 0;
        while tap.pings_at.front().is_some_and(|at| *at <= received) {
            tap.pings_at.pop_front();
            pings += 1;
        }
        if let Some(answer_ms) = self.peers[line].plan.answer_ms {
            for _ in 0..pings {
                self.after(answer_ms, Action::Answer(line));
            }
        }
        if self.net.unread_by_peer(line) > 0 {
            self.peers[line].reading_due = true;
            let delay_ms = self.peers[line].plan.read_delay_ms.max(1);
            self.after(delay_ms, Action::Read(line));
        } else if self.net.is_closed_by_server(line)
            && !self.net.is_in_flight(line)
            && !self.peers[line].over
        {
            self.over(line);
        }
    }

    /// The peer has read everything up to the end.
    fn over(&mut self, line: usize) {
        let peer = &mut self.peers[line];
        peer.over = true;
        if let Some(reconnect_ms) = peer.plan.reconnect_ms.filter(|_| self.talking) {
            let plan = peer.plan.clone();
            self.after(reconnect_ms, Action::Connect(plan));
        }
    }

    fn chance(&mut self, line: usize) {
        let Some(fault_every_ms) = self.peers[line]
            .plan
            .fault_every_ms
            .filter(|_| !self.peers[line].over && self.talking)
        else {
            return;
        };
        let fault = match self.peers[line].rng.u8(0..24) {
            0..=3 => Fault::Vanish,
            4..=7 => Fault::Stall,
            8..=11 => Fault::Recover,
            12..=15 => Fault::HalfClose,
            16 => Fault::HalfCloseTorn,
            17..=18 => Fault::Reset,
            19 => Fault::Oversize,
            _ => {
                let longest = self.peers[line]
                    .plan
                    .beat_ms
                    .map_or(1, |beat_ms| beat_ms * 2);
                let rng = &mut self.peers[line].rng;
                let (piece, gap_ms) = (1 << rng.u8(0..14), rng.u64(0..=longest.min(50)));
                (
                    self.peers[line].plan.piece,
                    self.peers[line].plan.piece_gap_ms,
                ) = (piece, gap_ms);
                Fault::Recover
            }
        };
        self.inject(line, fault);
        let delay_ms = self.peers[line].rng.u64(1..=fault_every_ms);
        self.after(delay_ms, Action::Chance(line));
    }

    fn inject(&mut self, line: usize, fault: Fault) {
        let max_message = self.driver.config.limits.max_message;
        let peer = &mut self.peers[line];
        if peer.vanished || peer.over || self.net.is_reset(line) {
            return;
        }
        self.app
            .trace
            .note("fault", self.net.now_ms, &[line as u64, fault as u64]);
        match fault {
            Fault::Vanish => peer.vanished = true,
            Fault::Stall => peer.reading = false,
            Fault::Recover => {
                peer.reading = true;
                self.notify_peer(line);
            }
            Fault::HalfClose => peer.closing = true,
            Fault::HalfCloseTorn if !peer.closing => {
                peer.tear();
                peer.closing = true;
            }
            Fault::Oversize if !peer.closing => {
                peer.exceed(max_message);
                peer.closing = true;
            }
            Fault::HalfCloseTorn | Fault::Oversize => {}
            Fault::Reset => {
                peer.over = true;
                self.net.reset(line);
            }
        }
        self.deliver_later(line, 0);
    }

    /// Ends the run in one of two ways, within a bounded time, and sees that nothing is left.
    pub fn end(&mut self, by_shutdown: bool, within_ms: u64) {
        self.talking = false;
        let now_ms = self.net.now_ms;
        if by_shutdown {
            self.at(now_ms, Action::Command(Command::Shutdown(within_ms)));
        } else {
            for line in 0..self.peers.len() {
                self.peers[line].cut_off = false;
                let plan = &mut self.peers[line].plan;
                (
                    plan.piece,
                    plan.piece_gap_ms,
                    plan.read_bytes,
                    plan.read_delay_ms,
                ) = (usize::MAX, 0, u64::MAX, 0);
                self.inject(line, Fault::Recover);
                self.inject(line, Fault::HalfClose);
            }
        }
        // A drain has its own deadline, and begins later on a server that is frozen; without one,
        // every silence has to be judged first.
        let last_ms = if by_shutdown {
            now_ms.max(self.busy_until) + within_ms + 10_000
        } else {
            now_ms + 100_000
        };
        self.run_until(now_ms + 1);
        while self.driver.engine.connections() > 0 {
            let end_ms = self.net.now_ms + 1;
            self.run_until(end_ms);
            assert!(
                self.net.now_ms <= last_ms,
                "the run does not end: {:?}",
                self.app.live_ids().collect::<Vec<_>>()
            );
        }
    }

    pub fn closed_for(&self, reason: CloseReason) -> usize {
        self.app
            .lines
            .iter()
            .filter(|line| {
                line.closed
                    .as_ref()
                    .is_some_and(|closed| closed.reason == reason)
            })
            .count()
    }

    /// A random command from another thread, for a random connection, living or not, or for
    /// `everybody`.
    pub fn random_command(&mut self, everybody: bool) -> Command {
        let line = self.rng.usize(0..=self.app.lines.len());
        let id = self
            .app
            .lines
            .get(line)
            .and_then(|line| line.id)
            .unwrap_or(ConnId::from_u64(self.rng.u64(..)));
        let message: Rc<[u8]> = b"COMMAND".as_slice().into();
        match self.rng.u8(0..12) {
            0 => Command::Close(id, Close::Now),
            1 => Command::Close(id, Close::AfterFlush),
            2 if everybody => Command::Broadcast(message),
            3 => Command::ExpireLogin(id),
            _ => Command::Send(id, message),
        }
    }
}
