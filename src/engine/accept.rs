//! Accepting: admission, PROXY headers, and evictions for new connections.

use std::collections::BinaryHeap;
use std::net::SocketAddr;

use super::conn::{Conn, Phase};
use super::{Context, Engine, Handler, get_live_mut};
use crate::close::{CloseReason, RejectReason};
use crate::config::OnFull;
use crate::framing::inbox::Inbox;
use crate::framing::proxy::{self, Header};
use crate::id::ConnId;
use crate::time::Timestamp;

/// How long a balancer may take to send its header, in milliseconds. The specification asks for it
/// to be sent at once.
const HEADER_MS: u64 = 10_000;

/// Number of idlest connections that one search collects.
const CANDIDATES: usize = 64;

impl Engine {
    /// Admits a connection, or returns the reason for its rejection: then there is no id, the
    /// handler is not called, and the caller drops the socket.
    ///
    /// A connection from a balancer (`Config::proxies`) first waits for its PROXY header: the
    /// handler learns of it when the header has been read. If it is rejected before,
    /// [`Engine::poll_rejected`] names it and the handler is never called.
    pub fn handle_open<H: Handler + ?Sized>(
        &mut self,
        now: Timestamp,
        peer: SocketAddr,
        handler: &mut H,
    ) -> Result<ConnId, RejectReason> {
        self.advance(now);
        let brought = self.proxies.contains(peer.ip());
        if let Err(refusal) = self.admit(peer, brought) {
            self.handle_rejection(refusal);
            return Err(refusal);
        }
        self.generation = self.generation.wrapping_add(1);
        let slot = self
            .conns
            .insert(Conn::new(self.now, peer, self.generation));
        let id = ConnId::new(slot, self.generation);
        if let Some(rate_limiter) = &mut self.rate_limiter {
            rate_limiter.open(slot);
        }
        if brought {
            self.conns[slot].phase = Phase::AwaitingProxyHeader;
            self.schedule_check(id);
        } else {
            self.begin(id, handler);
        }
        Ok(id)
    }

    fn admit(&mut self, peer: SocketAddr, brought: bool) -> Result<(), RejectReason> {
        if self.is_draining() {
            return Err(RejectReason::ShuttingDown);
        }
        let ip = (!brought).then(|| peer.ip().to_canonical());
        match self.admission.enter(ip) {
            // Above a lowered limit, an eviction would not make room.
            Err(RejectReason::Full)
                if self.on_full == OnFull::EvictIdlest
                    && !self.admission.is_over_full()
                    && self.evict_idlest() =>
            {
                self.admission.enter(ip)
            }
            admitted => admitted,
        }
    }

    fn begin<H: Handler + ?Sized>(&mut self, id: ConnId, handler: &mut H) {
        self.stats.opened += 1;
        if self.logins.needs_name() {
            self.conns[id.slot()].set_announced(false);
        }
        self.schedule_check(id);
        if !self.logins.needs_name() {
            self.announce(id, handler);
        }
    }

    /// Tells the handler of a connection, and rejects it if the handler does.
    pub(super) fn announce<H: Handler + ?Sized>(&mut self, id: ConnId, handler: &mut H) {
        self.opening = Some((id, false));
        handler.on_open(&mut Context { engine: self }, id);
        if self.opening.take() != Some((id, true)) {
            return;
        }
        let Some(conn) = self.conn_mut(id).filter(|conn| conn.phase == Phase::Open) else {
            return;
        };
        conn.phase = Phase::Refused(RejectReason::Application);
        let ip = conn.peer().ip();
        self.stats.opened -= 1;
        self.admission.forget_address(Some(ip));
        self.directory.remove(id);
        self.beats.remove(&id);
        self.forget_app_deadline(id);
        self.refused.push_back(id);
    }

    /// See [`Context::reject`].
    pub fn reject(&mut self, id: ConnId) -> bool {
        match &mut self.opening {
            Some((opening, is_rejected)) if *opening == id => {
                *is_rejected = true;
                true
            }
            _ => false,
        }
    }

    /// Counts a connection that the driver itself had to refuse.
    pub fn handle_rejection(&mut self, refusal: RejectReason) {
        self.stats.count_rejection(refusal);
    }

    /// Takes the first bytes of a connection from a balancer. Once the header is complete and the
    /// client it names is admitted, returns how many of these bytes belong to the header.
    pub(super) fn handle_proxy_header<H: Handler + ?Sized>(
        &mut self,
        id: ConnId,
        bytes: &[u8],
        handler: &mut H,
    ) -> Option<usize> {
        let conn = get_live_mut(&mut self.conns, id)?;
        let before = conn.inbox().frame_len();
        conn.inbox_mut(&mut self.memory).extend(bytes);
        let (len, source) = match proxy::parse(conn.inbox().frame()) {
            Ok(Header::Incomplete) => {
                self.enforce_memory_limit();
                return None;
            }
            Ok(Header::Complete { len, source }) => (len, source),
            Err(_) => {
                self.refuse(id, RejectReason::ProxyHeader);
                return None;
            }
        };
        *conn.inbox_mut(&mut self.memory) = Inbox::default();
        if let Some(source) = source {
            conn.set_peer(source);
        }
        let ip = conn.peer().ip();
        if let Err(refusal) = self.admission.name(ip) {
            self.refuse(id, refusal);
            return None;
        }
        conn.phase = Phase::Open;
        (conn.opened, conn.last_seen) = (self.now, self.now);
        self.skip_fanouts(id);
        self.begin(id, handler);
        Some(len - before)
    }

    /// When a connection that has not shown its header yet is out of time.
    pub(super) fn proxy_header_deadline(conn: &Conn) -> Timestamp {
        conn.opened.plus_ms(HEADER_MS + 1)
    }

    /// The peer closed the connection before its PROXY header was complete.
    pub(super) fn reject_cut_short(&mut self, id: ConnId) {
        let is_probe = self
            .conn(id)
            .is_some_and(|conn| conn.inbox().frame().is_empty());
        let refusal = if is_probe {
            RejectReason::Probe
        } else {
            RejectReason::ProxyHeader
        };
        self.refuse(id, refusal);
    }

    pub(super) fn refuse(&mut self, id: ConnId, refusal: RejectReason) {
        if let Some(conn) = self
            .conn_mut(id)
            .filter(|conn| conn.phase == Phase::AwaitingProxyHeader)
        {
            conn.phase = Phase::Refused(refusal);
            self.refused.push_back(id);
        }
    }

    /// The next connection that was rejected before its PROXY header was complete. It is gone from
    /// the engine, and the handler was never called for it; the caller drops the socket.
    pub fn poll_rejected(&mut self) -> Option<(ConnId, SocketAddr, RejectReason)> {
        let id = self.refused.pop_front()?;
        let conn = self.conns.remove(id.slot());
        let Phase::Refused(refusal) = conn.phase else {
            unreachable!("only the refused are in the list of the refused")
        };
        let peer = conn.peer();
        conn.release(&mut self.memory, &mut self.pool);
        self.wheel.remove(id.slot());
        self.admission.leave(None);
        self.handle_rejection(refusal);
        Some((id, peer, refusal))
    }

    /// Whether evictions have left more connections than the bound allows, until those evicted are
    /// reaped.
    pub fn is_over_full(&self) -> bool {
        self.conns.len() > self.admission.max_connections()
    }

    /// Closes the connection with the longest silence. `false` if there is none to close.
    fn evict_idlest(&mut self) -> bool {
        let Some(id) = self.next_idlest() else {
            return false;
        };
        let Some(conn) = self.conn(id) else {
            return false;
        };
        // Its place is free at once for the new connection; see poll_closed().
        self.admission.leave(Some(conn.peer().ip()));
        self.close(id, CloseReason::Evicted);
        true
    }

    /// A search visits every connection, so it finds many candidates, which serve until they
    /// are used up: a candidate that has sent nothing since is still idler than all others.
    fn next_idlest(&mut self) -> Option<ConnId> {
        self.next_candidate().or_else(|| {
            self.find_candidates();
            self.next_candidate()
        })
    }

    fn next_candidate(&mut self) -> Option<ConnId> {
        while let Some((seen, id)) = self.idlest.pop() {
            if self
                .conn(id)
                .is_some_and(|conn| conn.phase == Phase::Open && conn.last_seen == seen)
            {
                return Some(id);
            }
        }
        None
    }

    fn find_candidates(&mut self) {
        let mut idlest = BinaryHeap::with_capacity(CANDIDATES + 1);
        for (slot, conn) in self
            .conns
            .iter()
            .filter(|(_, conn)| conn.phase == Phase::Open)
        {
            let candidate = (conn.last_seen, ConnId::new(slot, conn.generation));
            if idlest.len() < CANDIDATES || idlest.peek().is_some_and(|latest| candidate < *latest)
            {
                idlest.push(candidate);
                if idlest.len() > CANDIDATES {
                    idlest.pop();
                }
            }
        }
        self.idlest = idlest.into_sorted_vec();
        self.idlest.reverse();
    }
}
