#![no_main]

#[path = "../../tests/fuzz/engine/mod.rs"]
mod engine;
#[path = "../../tests/fuzz/reader.rs"]
mod reader;

libfuzzer_sys::fuzz_target!(|data: &[u8]| engine::engine(data));
