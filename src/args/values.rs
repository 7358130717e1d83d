//! Values of flags, as people write them.

use std::str::FromStr;
use std::time::Duration;

use bytesize::ByteSize;
use clap::ValueEnum;

/// A duration such as `5s`, `1500ms` or `2m`, or `off`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct DurationOrOff(pub(crate) Option<Duration>);

impl FromStr for DurationOrOff {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "off" {
            Ok(DurationOrOff(None))
        } else {
            duration(text).map(|duration| DurationOrOff(Some(duration)))
        }
    }
}

/// A duration such as `5s`, `1500ms` or `2m`. A bare number is refused: seconds and milliseconds
/// are too easily confused.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text).map_err(|error| format!("{error}; write 5s, 1500ms or 2m"))
}

/// A number of bytes: `65536`, `64KiB`, `1MiB`; `64KB` is 64,000.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Size(pub(crate) usize);

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bytes = text
            .parse::<ByteSize>()
            .map_err(|_| "not a size; write 65536, 64KiB or 1MiB".to_string())?;
        usize::try_from(bytes.as_u64())
            .map(Size)
            .map_err(|_| "larger than this machine's address space".to_string())
    }
}

/// A number of bytes, or `off`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SizeOrOff(pub(crate) Option<usize>);

impl FromStr for SizeOrOff {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "off" {
            Ok(SizeOrOff(None))
        } else {
            text.parse().map(|Size(bytes)| SizeOrOff(Some(bytes)))
        }
    }
}

/// How often to try: a number, or `forever`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tries(pub(crate) Option<u32>);

impl FromStr for Tries {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "forever" {
            return Ok(Tries(None));
        }
        match text.parse() {
            Ok(tries @ 1..) => Ok(Tries(Some(tries))),
            _ => Err("write a number from 1, or forever".to_string()),
        }
    }
}

/// A switch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum OnOff {
    On,
    Off,
}

/// A duration for a person: `5 s`, `2.5 s`, `250 ms`.
pub(crate) fn display(duration: Duration) -> String {
    let ms = duration.as_millis();
    match (ms / 1000, ms % 1000 / 100) {
        (0, _) => format!("{ms} ms"),
        (secs, 0) => format!("{secs} s"),
        (secs, tenths) => format!("{secs}.{tenths} s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_need_a_unit() {
        assert_eq!("off".parse(), Ok(DurationOrOff(None)));
        assert_eq!(
            "1500ms".parse(),
            Ok(DurationOrOff(Some(Duration::from_millis(1500))))
        );
        assert_eq!(duration("2m"), Ok(Duration::from_secs(120)));
        assert!(duration("5").is_err());
        assert!("soon".parse::<DurationOrOff>().is_err());
    }

    #[test]
    fn sizes_are_plain_or_with_a_unit() {
        for (text, bytes) in [
            ("65536", 65536),
            ("64KiB", 65536),
            ("1MiB", 1 << 20),
            ("64KB", 64_000),
            ("64 kib", 65536),
        ] {
            assert_eq!(text.parse(), Ok(Size(bytes)), "{text}");
        }
        assert!("many".parse::<Size>().is_err());
        assert_eq!(
            ("off".parse(), "1KiB".parse()),
            (Ok(SizeOrOff(None)), Ok(SizeOrOff(Some(1024))))
        );
    }

    #[test]
    fn tries_are_a_number_or_for_ever() {
        assert_eq!("forever".parse(), Ok(Tries(None)));
        assert_eq!("5".parse(), Ok(Tries(Some(5))));
        assert!("0".parse::<Tries>().is_err());
        assert!("-1".parse::<Tries>().is_err());
    }

    #[test]
    fn durations_are_formatted() {
        let shown = [5000, 2500, 2049, 250, 0].map(|ms| display(Duration::from_millis(ms)));
        assert_eq!(shown, ["5 s", "2.5 s", "2 s", "250 ms", "0 ms"]);
    }
}
