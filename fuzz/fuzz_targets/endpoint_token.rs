//! Any text as the token of an endpoint: no panic, and nothing but what was minted opens.
#![no_main]

use std::sync::LazyLock;
use std::time::Duration;

use emberbox_control::token::{Claims, Purpose, TokenKeys};
use emberbox_wire::ids::MicrovmId;
use libfuzzer_sys::fuzz_target;
use time::OffsetDateTime;

static KEYS: LazyLock<(TokenKeys, String)> = LazyLock::new(|| {
    let keys = TokenKeys::generate();
    let claims = Claims::new(MicrovmId::random(), Purpose::Traffic, Vec::new(), OffsetDateTime::UNIX_EPOCH, Duration::from_secs(60));
    let token = keys.mint(&claims);
    (keys, token)
});

// The first byte says where the minted token is changed, and to what: a fuzzer would not find a sealed text by itself.
fuzz_target!(|bytes: &[u8]| {
    let (keys, minted) = &*KEYS;
    let _ = keys.open(&String::from_utf8_lossy(bytes), OffsetDateTime::UNIX_EPOCH);
    if let [at, byte, ..] = *bytes {
        let mut token = minted.clone().into_bytes();
        let at = usize::from(at) % token.len();
        token[at] = byte;
        let token = String::from_utf8_lossy(&token);
        if token != *minted {
            assert!(keys.open(&token, OffsetDateTime::UNIX_EPOCH).is_err(), "{token}");
        }
    }
});
