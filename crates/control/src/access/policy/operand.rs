//! Values of conditions that are not text: numbers, dates, addresses.

use std::net::IpAddr;

use time::format_description::BorrowedFormatItem;
use time::format_description::well_known::Rfc3339;
use time::macros::format_description;
use time::{Date, OffsetDateTime, PrimitiveDateTime};

const DATE: &[BorrowedFormatItem<'_>] = format_description!("[year]-[month]-[day]");
const MINUTES: &[BorrowedFormatItem<'_>] = format_description!("[year]-[month]-[day]T[hour]:[minute]Z");

/// A date of ISO 8601 or a number of seconds since 1970 (documented), in milliseconds.
pub(super) fn date(text: &str) -> Option<i64> {
    if let Ok(seconds) = text.parse::<i64>() {
        return seconds.checked_mul(1000);
    }
    let moment = OffsetDateTime::parse(text, &Rfc3339)
        .ok()
        .or_else(|| PrimitiveDateTime::parse(text, MINUTES).ok().map(PrimitiveDateTime::assume_utc))
        .or_else(|| Date::parse(text, DATE).ok().map(|date| date.midnight().assume_utc()))?;
    i64::try_from(moment.unix_timestamp_nanos() / 1_000_000).ok()
}

pub(super) fn number(text: &str) -> Option<f64> {
    text.trim().parse::<f64>().ok().filter(|number| number.is_finite())
}

/// An address or a network of either family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Network {
    bits: u128,
    mask: u128,
    v6: bool,
}

impl Network {
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (address, length) = text.split_once('/').map_or((text, None), |(address, length)| (address, Some(length)));
        let address: IpAddr = address.parse().ok()?;
        let (bits, width, v6) = match address {
            IpAddr::V4(v4) => (u128::from(v4.to_bits()), 32, false),
            IpAddr::V6(v6) => (v6.to_bits(), 128, true),
        };
        let length = length.map_or(Some(width), |length| length.parse::<u32>().ok()).filter(|length| *length <= width)?;
        // As many ones as the prefix is long, at the top of the family's width; a shift by 128 would overflow.
        let ones = if length == 0 { 0 } else { u128::MAX >> (128 - length) };
        let mask = if length == 0 { 0 } else { ones << (width - length) };
        Some(Self { bits: bits & mask, mask, v6 })
    }

    pub(super) fn contains(&self, text: &str) -> bool {
        match text.parse::<IpAddr>().map(|address| address.to_canonical()) {
            Ok(IpAddr::V4(v4)) => !self.v6 && u128::from(v4.to_bits()) & self.mask == self.bits,
            Ok(IpAddr::V6(v6)) => self.v6 && v6.to_bits() & self.mask == self.bits,
            Err(_) => false,
        }
    }
}
