//! Medians and spreads, and how numbers are written.

use serde::Serialize;

#[derive(Clone, Copy, Debug, Serialize)]
pub struct Spread {
    pub median: f64,
    pub min: f64,
    pub max: f64,
}

impl Spread {
    pub fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        let middle = values.len() / 2;
        let median = if values.len() % 2 == 1 {
            *values.get(middle)?
        } else {
            (values.get(middle.checked_sub(1)?)? + values.get(middle)?) / 2.0
        };
        Some(Spread {
            median,
            min: *values.first()?,
            max: *values.last()?,
        })
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Unit {
    Bytes,
    Megabytes,
    Nanoseconds,
    Microseconds,
    Milliseconds,
    /// How many of something.
    Count,
    /// How many times something else.
    Times,
}

impl Unit {
    pub fn name(self) -> &'static str {
        match self {
            Unit::Bytes => "B",
            Unit::Megabytes => "MB",
            Unit::Nanoseconds => "ns",
            Unit::Microseconds => "µs",
            Unit::Milliseconds => "ms",
            Unit::Count => "",
            Unit::Times => "×",
        }
    }

    /// With as many digits as one might believe, without the unit.
    pub fn number(self, value: f64) -> String {
        match self {
            Unit::Bytes | Unit::Count => grouped(value),
            _ if value.abs() >= 1000.0 => grouped(value),
            _ if value.abs() >= 100.0 => format!("{value:.0}"),
            _ if value.abs() >= 10.0 => format!("{value:.1}"),
            _ => format!("{value:.2}"),
        }
    }

    pub fn written(self, value: f64) -> String {
        format!("{} {}", self.number(value), self.name())
            .trim_end()
            .to_string()
    }

    pub fn range(self, spread: &Spread) -> String {
        format!("{}–{}", self.number(spread.min), self.number(spread.max))
    }
}

/// 12345.6 as 12,346.
fn grouped(value: f64) -> String {
    let digits = format!("{:.0}", value.abs());
    let mut written = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index) % 3 == 0 {
            written.push(',');
        }
        written.push(digit);
    }
    if value < 0.0 && digits != "0" {
        format!("-{written}")
    } else {
        written
    }
}
