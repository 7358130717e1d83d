//! The engine in virtual time, against thousands of peers that talk, fall silent, stall, reset and
//! come back.
//!
//! Everything in a run follows from its seed. A failure prints the seed and the command that
//! replays it.

mod app;
mod driver;
mod frame_boundary;
mod generator;
mod ledger;
mod million;
mod net;
mod oracle;
mod origin;
mod peer;
mod random;
mod scenarios;
mod trace;
mod world;
