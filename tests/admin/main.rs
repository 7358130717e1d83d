//! The admin endpoint of `heartline serve`, as its clients see it: requests, errors, and abuse.
#![cfg(feature = "cli")]

mod abuse;
mod access;
mod client;
#[path = "../common/mod.rs"]
mod common;
mod endpoints;
mod lifecycle;
mod names;

use client::Client;
use common::{Serve, serve_with_admin as serve};
use serde_json::Value;

/// The response to one request, on a connection of its own.
fn get(server: &Serve, target: &str) -> Value {
    Client::connect(server).get(target).expect(200)
}

/// The ids of the connections, the oldest first.
fn ids(server: &Serve) -> Vec<String> {
    let page = get(server, "/connections?sort=age");
    let id = |connection: &Value| connection["id"].as_str().expect("an id").to_owned();
    page["connections"]
        .as_array()
        .expect("a list")
        .iter()
        .map(id)
        .collect()
}

/// A sample of /metrics.
fn metric(server: &Serve, name: &str) -> f64 {
    let reply = Client::connect(server).get("/metrics");
    let line = reply
        .body
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.and_then(|figure| figure.parse().ok())
        .unwrap_or_else(|| panic!("no {name} in {}", reply.body))
}
