//! Heartline holds very many long-lived TCP connections on one thread and closes dead peers within
//! a stated time. With it comes a client that reconnects.
//!
//! ```no_run
//! use heartline::{Config, ConnId, Context, Handler, Server};
//!
//! struct Echo;
//!
//! impl Handler for Echo {
//!     fn on_message(&mut self, cx: &mut Context<'_>, id: ConnId, message: &[u8]) {
//!         // A full queue closes the connection by itself: there is nothing to do about an error here.
//!         let _ = cx.send_parts(id, &[b"echo: ", message]);
//!     }
//! }
//!
//! fn main() -> Result<(), heartline::Error> {
//!     Server::bind("127.0.0.1:7878", Config::default())?.run(&mut Echo)
//! }
//! ```
//!
//! * [`Server`] holds the connections. [`Handler`] is your application, [`Context`] is what its
//!   callbacks use, [`Handle`] what other threads use.
//! * [`client::Client`] is the other end: it sends pings, notices silence and reconnects.
//! * [`engine::Engine`] is the server without sockets and clock, for simulations and for your own
//!   drivers.
//!
//! The bound: with [`Heartbeat`] interval `H`, retry `R` and `M` missed pings, a silent peer is
//! closed no earlier than `H + R * M` after its last byte, and no later than one [`Config::tick`]
//! and the lag of the loop after that.

// One call needs it: see net/tcp_info.rs.
#![deny(unsafe_code)]
#![deny(missing_docs)]

pub mod access_list;
#[cfg(feature = "cli")]
mod admin;
#[cfg(feature = "cli")]
mod apps;
#[cfg(feature = "cli")]
mod args;
#[cfg(feature = "cli")]
mod bench;
#[cfg(feature = "cli")]
pub mod cli;
pub mod client;
#[cfg(feature = "cli")]
mod connect;
#[cfg(feature = "cli")]
mod console;
pub mod engine;
pub mod framing;
#[cfg(feature = "cli")]
mod humanize;
#[cfg(feature = "cli")]
mod jwt;
#[cfg(feature = "cli")]
mod logging;
#[cfg(feature = "cli")]
mod serve;
#[cfg(feature = "cli")]
mod settings;
#[cfg(feature = "cli")]
mod status;
pub mod time;
#[cfg(feature = "cli")]
mod tokens;
#[cfg(feature = "cli")]
mod top;

mod close;
mod config;
mod directory;
mod error;
mod id;
mod keepalive;
mod net;
mod progress;
mod server;
mod totals;

pub use close::{CloseReason, DenyReason, Origin, RejectReason};
pub use config::{Config, Heartbeat, Limits, Login, LoginMode, OnDuplicate, OnFull, OnSlow};
pub use directory::{MAX_GROUPS, MAX_NAME_BYTES, Name, NameError, TooManyGroups};
pub use engine::{
    Broadcast, BroadcastId, Close, Closed, ConnectionInfo, Context, Handler, Histogram, Identity,
    LoginDecision, LoginRequest, NameCounts, Stats,
};
pub use error::{ConfigError, Error, SendError};
pub use framing::{Framing, HeartbeatWords};
pub use id::ConnId;
pub use keepalive::Keepalive;
pub use server::{Handle, Server, Turn};
