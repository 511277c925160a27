//! Any head of a request: what it claims of its signature is read without a panic, and a claim that was read can be put into canonical form.
//!
//! The input is the method, the URI and then headers, `name: value` on a line each.
#![no_main]

use emberbox_api::sigv4::{Claim, canonical, parse};
use http::Request;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let mut lines = bytes.split(|byte| *byte == b'\n');
    let mut request = Request::builder().method(lines.next().unwrap_or_default()).uri(lines.next().unwrap_or_default());
    for line in lines {
        let mut halves = line.splitn(2, |byte| *byte == b':');
        request = request.header(halves.next().unwrap_or_default(), halves.next().unwrap_or_default());
    }
    let Ok(request) = request.body(()) else { return };
    let (parts, ()) = request.into_parts();
    let _ = parse::claimed_service(&parts);
    if let Ok(Some(claim)) = Claim::of(&parts) {
        let _ = canonical::request(&parts, &claim, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    }
});
