//! Everything that happened in a run, as one number: the same seed must give the same number.

/// An FNV-1a hash of everything noted. With `HEARTLINE_SIM_TRACE` set, it is printed as well.
pub struct Trace {
    pub hash: u64,
    print: bool,
}

impl Default for Trace {
    fn default() -> Self {
        Trace {
            hash: 0xcbf2_9ce4_8422_2325,
            print: std::env::var_os("HEARTLINE_SIM_TRACE").is_some(),
        }
    }
}

impl Trace {
    pub fn note(&mut self, what: &str, at_ms: u64, values: &[u64]) {
        if self.print {
            println!("{at_ms:>8} {what} {values:?}");
        }
        let numbers = [at_ms]
            .into_iter()
            .chain(values.iter().copied())
            .flat_map(u64::to_le_bytes);
        for byte in what.bytes().chain(numbers) {
            self.hash = (self.hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
        }
    }
}
