//! Figures as people read them.

use bytesize::ByteSize;

/// A whole number with its thousands apart: `65,000`.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A number of connections: `1 connection`, `15,000 connections`.
pub(crate) fn connections(count: u64) -> String {
    format!(
        "{} {}",
        grouped(count),
        if count == 1 {
            "connection"
        } else {
            "connections"
        }
    )
}

/// A number of bytes: `0 B`, `3.9 MiB`.
pub(crate) fn bytes(bytes: u64) -> String {
    ByteSize::b(bytes).to_string()
}

/// A number of bytes where there is little room: `0B`, `3.9M`; seven characters at most.
pub(crate) fn short_bytes(bytes: u64) -> String {
    ByteSize::b(bytes).display().iec_short().to_string()
}

/// A rate per second: whole numbers, except for small ones.
pub(crate) fn rate(per_second: f64) -> String {
    match per_second {
        0.0 => "0".to_string(),
        slow if slow < 9.95 => format!("{slow:.1}"),
        fast => grouped(fast.round() as u64),
    }
}

/// A short length of time in microseconds, in three or four digits.
pub(crate) fn duration(us: f64) -> String {
    match us {
        us if us < 0.9995 => format!("{:.0} ns", us * 1e3),
        us if us < 99.95 => format!("{us:.1} µs"),
        us if us < 999.5 => format!("{us:.0} µs"),
        us if us < 99_950.0 => format!("{:.1} ms", us / 1e3),
        us if us < 999_500.0 => format!("{:.0} ms", us / 1e3),
        us => format!("{:.2} s", us / 1e6),
    }
}

/// Formats the upper bound of a percentile, in seconds. Times are whole milliseconds, so 0 means
/// less than 1 ms.
pub(crate) fn bound(seconds: f64) -> String {
    if seconds > 0.0 {
        format!("≤ {}", duration(seconds * 1e6))
    } else {
        "<1ms".to_string()
    }
}

/// A length of time in seconds that may be long: `12.3s`, `4m05s`, `3h12m`, `17d04h`. Never wider
/// than seven characters below a thousand years.
pub(crate) fn span(seconds: f64) -> String {
    // Rounded down, as clocks are.
    let whole = seconds.max(0.0) as u64;
    match whole {
        0..60 => format!("{:.1}s", (seconds.max(0.0) * 10.0).floor() / 10.0),
        60..3600 => format!("{}m{:02}s", whole / 60, whole % 60),
        3600..86_400 => format!("{}h{:02}m", whole / 3600, whole / 60 % 60),
        _ => format!("{}d{:02}h", whole / 86_400, whole / 3600 % 24),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_are_grouped() {
        assert_eq!(
            [0, 999, 1000, 65_000, 1_234_567].map(grouped),
            ["0", "999", "1,000", "65,000", "1,234,567"]
        );
        assert_eq!(
            [0, 1, 15_000].map(connections),
            ["0 connections", "1 connection", "15,000 connections"]
        );
    }

    #[test]
    fn bytes_are_binary() {
        assert_eq!(
            [0, 1023, 1536, 268_435_456].map(bytes),
            ["0 B", "1023 B", "1.5 KiB", "256.0 MiB"]
        );
    }

    #[test]
    fn bytes_in_little_room_are_short() {
        let shown = [0, 1023, 1536, (1 << 20) - 1, 268_435_456, u64::MAX].map(short_bytes);
        assert_eq!(shown, ["0B", "1023B", "1.5K", "1024.0K", "256.0M", "16.0E"]);
    }

    #[test]
    fn rates_have_a_digit_more_where_they_are_low() {
        assert_eq!(
            [0.0, 0.04, 1.25, 9.96, 1234.5].map(rate),
            ["0", "0.0", "1.2", "10", "1,235"]
        );
    }

    #[test]
    fn short_times_have_the_unit_that_fits() {
        for (us, text) in [
            (0.02, "20 ns"),
            (0.9999, "1.0 µs"),
            (12.345, "12.3 µs"),
            (99.99, "100 µs"),
            (999.9, "1.0 ms"),
            (1500.0, "1.5 ms"),
            (250_000.0, "250 ms"),
            (999_999.0, "1.00 s"),
            (20_100_000.0, "20.10 s"),
        ] {
            assert_eq!(duration(us), text);
        }
    }

    #[test]
    fn long_times_have_the_two_units_that_matter() {
        let shown = [
            0.0,
            59.99,
            60.0,
            3599.9,
            11_520.0,
            86_400.0,
            1_483_200.0,
            -1.0,
        ]
        .map(span);
        assert_eq!(
            shown,
            [
                "0.0s", "59.9s", "1m00s", "59m59s", "3h12m", "1d00h", "17d04h", "0.0s"
            ]
        );
    }
}
