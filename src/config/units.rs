//! Durations and sizes as people write them: `5s`, `0.5`, `250ms`, `1MiB`.

use std::fmt;

/// Why a text is no duration or size.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum UnitError {
    /// Not a number with a unit.
    Malformed,
    /// Finer than a millisecond or a byte.
    TooFine,
    /// More than fits in 64 bits.
    TooLarge,
    /// `KB`, `MB` or `GB`, which mean a thousand to some and 1,024 to others.
    AmbiguousUnit,
}

/// Milliseconds in a duration: a number with `ms`, `s`, `m` or `h`, or alone for seconds. Fractions are exact.
///
/// # Errors
/// When the text is no such number, or it does not come to whole milliseconds.
pub fn parse_duration_ms(text: &str) -> Result<u64, UnitError> {
    let (number, unit) = split(text);
    let factor = match unit {
        "ms" => 1,
        "" | "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return Err(UnitError::Malformed),
    };
    scaled(number, factor)
}

/// Bytes in a size: a number with `KiB`, `MiB` or `GiB`, or alone (or with `B`) for bytes.
///
/// # Errors
/// When the text is no such number, or it does not come to whole bytes.
pub fn parse_bytes(text: &str) -> Result<u64, UnitError> {
    let (number, unit) = split(text);
    let factor = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "kib" => 1 << 10,
        "mib" => 1 << 20,
        "gib" => 1 << 30,
        "k" | "kb" | "m" | "mb" | "g" | "gb" => return Err(UnitError::AmbiguousUnit),
        _ => return Err(UnitError::Malformed),
    };
    scaled(number, factor)
}

/// A duration in the largest unit that needs no fraction.
#[must_use]
pub fn show_duration_ms(millis: u64) -> String {
    match millis {
        0 => "0s".to_owned(),
        _ if millis.is_multiple_of(3_600_000) => format!("{}h", millis / 3_600_000),
        _ if millis.is_multiple_of(60_000) => format!("{}m", millis / 60_000),
        _ if millis.is_multiple_of(1_000) => format!("{}s", millis / 1_000),
        _ => format!("{millis}ms"),
    }
}

/// A size in the largest unit that needs no fraction.
#[must_use]
pub fn show_bytes(bytes: u64) -> String {
    match bytes {
        0 => "0B".to_owned(),
        _ if bytes.is_multiple_of(1 << 30) => format!("{}GiB", bytes >> 30),
        _ if bytes.is_multiple_of(1 << 20) => format!("{}MiB", bytes >> 20),
        _ if bytes.is_multiple_of(1 << 10) => format!("{}KiB", bytes >> 10),
        _ => format!("{bytes}B"),
    }
}

/// The number and the unit behind it, which may be empty.
fn split(text: &str) -> (&str, &str) {
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    (&text[..end], text[end..].trim_start())
}

/// `number * factor` without rounding.
fn scaled(number: &str, factor: u64) -> Result<u64, UnitError> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    let is_number = |digits: &str| !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    if !is_number(whole) || !is_number(fraction) {
        return Err(UnitError::Malformed);
    }
    let whole: u64 = whole.parse().map_err(|_| UnitError::TooLarge)?;
    let whole = whole.checked_mul(factor).ok_or(UnitError::TooLarge)?;
    let fraction = scaled_fraction(fraction.trim_end_matches('0'), factor)?;
    whole.checked_add(fraction).ok_or(UnitError::TooLarge)
}

/// `0.digits * factor` without rounding.
fn scaled_fraction(digits: &str, factor: u64) -> Result<u64, UnitError> {
    if digits.is_empty() {
        return Ok(0);
    }
    // A factor has less than 32 factors of 2 and of 5, and so no fraction with more digits comes out whole.
    let places = u32::try_from(digits.len()).ok().filter(|places| *places <= 32).ok_or(UnitError::TooFine)?;
    let value: u128 = digits.parse().map_err(|_| UnitError::TooFine)?;
    let product = value.checked_mul(u128::from(factor)).ok_or(UnitError::TooFine)?;
    let divisor = 10_u128.pow(places);
    if !product.is_multiple_of(divisor) {
        return Err(UnitError::TooFine);
    }
    u64::try_from(product / divisor).map_err(|_| UnitError::TooLarge)
}

impl fmt::Display for UnitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            UnitError::Malformed => "is not a number with a known unit",
            UnitError::TooFine => "is finer than this setting can be",
            UnitError::TooLarge => "is too large",
            UnitError::AmbiguousUnit => {
                "has an ambiguous unit: write KiB, MiB or GiB (each 1,024 of the one before)"
            }
        })
    }
}
