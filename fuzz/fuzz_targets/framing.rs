#![no_main]

#[path = "../../tests/fuzz/framing.rs"]
mod framing;
#[path = "../../tests/fuzz/reader.rs"]
mod reader;

libfuzzer_sys::fuzz_target!(|data: &[u8]| framing::framing(data));
