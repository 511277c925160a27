//! Any bytes as an artifact: no panic, nothing outside the root, no link that leaves it, nothing beyond the limits.
#![no_main]

use std::fs;
use std::io::Cursor;
use std::path::Path;
use std::sync::atomic::AtomicBool;

use emberbox_images::Limits;
use emberbox_images::artifact::unpack;
use libfuzzer_sys::fuzz_target;

/// Small enough that a fuzzer meets them.
fn limits() -> Limits {
    Limits {
        entries: 16,
        unpacked_bytes: 1 << 16,
        file_bytes: 1 << 15,
        path_bytes: 64,
        path_depth: 6,
        ratio: 20,
        ratio_applies_above_bytes: 1 << 12,
        ..Limits::default()
    }
}

fuzz_target!(|bytes: &[u8]| {
    let parent = tempfile::tempdir().expect("a temporary directory can be made");
    let _ = unpack(Cursor::new(bytes), &parent.path().join("root"), &limits(), &AtomicBool::new(false));
    let names: Vec<_> = fs::read_dir(parent.path()).expect("it is readable").flatten().map(|entry| entry.file_name()).collect();
    assert!(names.iter().all(|name| name == "root"), "{names:?}");
    let root = parent.path().canonicalize().expect("it exists").join("root");
    if root.exists() {
        let (entries, written) = measure(&root, &root);
        assert!(entries <= limits().entries && written <= limits().unpacked_bytes);
    }
});

fn measure(root: &Path, directory: &Path) -> (u64, u64) {
    let (mut entries, mut bytes) = (0, 0);
    for path in fs::read_dir(directory).expect("it is readable").flatten().map(|entry| entry.path()) {
        let metadata = fs::symlink_metadata(&path).expect("it exists");
        entries += 1;
        if metadata.is_symlink() {
            assert!(path.canonicalize().map_or(true, |target| target.starts_with(root)), "{path:?}");
        } else if metadata.is_dir() {
            let below = measure(root, &path);
            (entries, bytes) = (entries + below.0, bytes + below.1);
        } else {
            assert!(metadata.is_file());
            bytes += metadata.len();
        }
    }
    (entries, bytes)
}
