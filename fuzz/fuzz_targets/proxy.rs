#![no_main]

#[path = "../../tests/fuzz/proxy.rs"]
mod proxy;

libfuzzer_sys::fuzz_target!(|data: &[u8]| proxy::proxy(data));
