//! Whether a signature is of now: five minutes either way, or as long as a presigned URL says, at most seven days (documented).

use emberbox_wire::error::{ApiError, ErrorCode};
use time::format_description::BorrowedFormatItem;
use time::macros::format_description;
use time::{Duration, OffsetDateTime, PrimitiveDateTime};

use super::parse::{Claim, Form};

const SKEW: Duration = Duration::minutes(5);
const MAX_EXPIRES_SECONDS: u32 = 7 * 24 * 60 * 60;
const FORMAT: &[BorrowedFormatItem<'_>] = format_description!("[year][month][day]T[hour][minute][second]Z");

pub(super) fn check(claim: &Claim, now: OffsetDateTime) -> Result<(), ApiError> {
    let signed = parse(&claim.timestamp)
        .ok_or_else(|| ApiError::new(ErrorCode::IncompleteSignature, "Date must be in ISO-8601 'basic format': YYYYMMDDTHHMMSSZ."))?;
    if !claim.timestamp.starts_with(&claim.scope.date) || claim.scope.date.len() != 8 {
        let message = format!(
            "Date in Credential scope does not match YYYYMMDD from ISO-8601 version of date from HTTP: '{}' != '{}'.",
            claim.scope.date,
            claim.timestamp.get(..8).unwrap_or_default()
        );
        return Err(ApiError::new(ErrorCode::InvalidSignature, message));
    }
    if signed - SKEW > now {
        let message =
            format!("Signature not yet current: {} is still later than {} ({} + 5 min.)", claim.timestamp, text(now + SKEW), text(now));
        return Err(ApiError::new(ErrorCode::RequestExpired, message));
    }
    let lifetime = match claim.form {
        Form::Header => SKEW,
        Form::Presigned { expires_seconds } if (1..=MAX_EXPIRES_SECONDS).contains(&expires_seconds) => {
            Duration::seconds(expires_seconds.into())
        }
        Form::Presigned { .. } => {
            let message = "X-Amz-Expires must be between 1 and 604800 seconds; the given X-Amz-Expires is not.";
            return Err(ApiError::new(ErrorCode::IncompleteSignature, message));
        }
    };
    if signed + lifetime < now {
        let message = match claim.form {
            Form::Header => {
                format!("Signature expired: {} is now earlier than {} ({} - 5 min.)", claim.timestamp, text(now - SKEW), text(now))
            }
            Form::Presigned { .. } => format!("Signature expired: {} is now earlier than {}", text(signed + lifetime), text(now)),
        };
        return Err(ApiError::new(ErrorCode::RequestExpired, message));
    }
    Ok(())
}

/// Four digits of year and no sign, so that no arithmetic on the result leaves the calendar.
fn parse(timestamp: &str) -> Option<OffsetDateTime> {
    let plain = timestamp.len() == 16 && timestamp.bytes().next().is_some_and(|b| b.is_ascii_digit());
    if !plain {
        return None;
    }
    PrimitiveDateTime::parse(timestamp, FORMAT).ok().map(PrimitiveDateTime::assume_utc)
}

fn text(moment: OffsetDateTime) -> String {
    moment.format(FORMAT).unwrap_or_default()
}
