#![no_main]

#[path = "../../tests/fuzz/handshake.rs"]
mod handshake;

libfuzzer_sys::fuzz_target!(|data: &[u8]| handshake::handshake(data));
