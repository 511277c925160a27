//! Every way an archive can be bad, each made by hand, and what is said of it.
#![allow(clippy::unwrap_used)]

mod support;

use std::io::Cursor;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::atomic::AtomicBool;

use emberbox_images::Limits;
use emberbox_images::artifact::{ArchiveError, Unpacked, unpack};
use proptest::prelude::*;
use support::{DIRECTORY, FILE, Item, LINK, deflated, dockerfile, file, item, zip};

fn unpack_into(parent: &Path, bytes: &[u8], limits: &Limits) -> Result<Unpacked, ArchiveError> {
    unpack(Cursor::new(bytes), &parent.join("root"), limits, &AtomicBool::new(false))
}

fn refusal(bytes: &[u8]) -> String {
    refusal_with(bytes, &Limits::default())
}

fn refusal_with(bytes: &[u8], limits: &Limits) -> String {
    let parent = tempfile::tempdir().unwrap();
    let text = unpack_into(parent.path(), bytes, limits).unwrap_err().to_string();
    assert!(std::fs::read_dir(parent.path()).unwrap().all(|entry| entry.unwrap().file_name() == "root"));
    text
}

/// The refusal of a zip with a Dockerfile and these.
fn refused(items: &[Item]) -> String {
    refusal(&zip(&[&[dockerfile()], items].concat()))
}

fn mode(path: &Path) -> u32 {
    std::fs::symlink_metadata(path).unwrap().permissions().mode() & 0o7777
}

#[test]
fn a_good_archive_is_unpacked_with_its_permissions() {
    let parent = tempfile::tempdir().unwrap();
    let items = [
        item("./", DIRECTORY, b""),
        dockerfile(),
        deflated("app/main.py", &b"print(1)\n".repeat(9000)),
        item("bin/run", 0o104_777, b"#!"),
        item("secret", 0o100_400, b"s"),
        item("closed/", 0o040_511, b""),
        item("closed/in", FILE, b"x"),
        item("app/link", LINK, b"../bin/run"),
        item("plain", 0, b"no mode"),
        item("dangling", LINK, b"nowhere"),
    ];
    let unpacked = unpack_into(parent.path(), &zip(&items), &Limits::default()).unwrap();
    let root = parent.path().join("root");
    assert_eq!(unpacked.bytes, 13 + 81_000 + 2 + 1 + 1 + 10 + 7 + 7);
    assert_eq!(std::fs::read(root.join("app/main.py")).unwrap().len(), 81_000);
    assert_eq!(mode(&root.join("bin/run")), 0o755);
    assert_eq!(mode(&root.join("bin")), 0o755);
    assert_eq!(mode(&root.join("secret")), 0o600);
    assert_eq!(mode(&root.join("closed")), 0o711);
    assert_eq!(mode(&root.join("plain")), 0o644);
    assert_eq!(mode(&root), 0o700);
    assert_eq!(std::fs::read(root.join("app/link")).unwrap(), b"#!");
    assert_eq!(std::fs::read_link(root.join("dangling")).unwrap(), Path::new("nowhere"));
}

#[test]
fn archives_of_the_zip_crate_are_read() {
    use std::io::Write;
    for large in [false, true] {
        let mut writer = zip::ZipWriter::new(Cursor::new(Vec::new()));
        let options = zip::write::SimpleFileOptions::default().large_file(large).unix_permissions(0o755);
        writer.start_file("Dockerfile", options.compression_method(zip::CompressionMethod::Deflated)).unwrap();
        writer.write_all(b"FROM scratch\n").unwrap();
        writer.add_directory("empty", options).unwrap();
        writer.add_symlink("link", "Dockerfile", options).unwrap();
        writer.set_comment("PK\u{5}\u{6} is how the end record begins");
        let bytes = writer.finish().unwrap().into_inner();
        let parent = tempfile::tempdir().unwrap();
        assert_eq!(unpack_into(parent.path(), &bytes, &Limits::default()).unwrap().entries, 3);
        assert_eq!(mode(&parent.path().join("root/Dockerfile")), 0o755);
    }
}

#[test]
fn what_is_not_a_zip_is_told_so() {
    assert_eq!(refusal(b""), "not a zip archive: it is empty");
    assert_eq!(refusal(b"PK"), "not a zip archive: it is too short");
    assert_eq!(refusal(&b"\x1f\x8b gzip, surely".repeat(9)), "not a zip archive: it has no end record");
    let good = zip(&[dockerfile()]);
    assert_eq!(refusal(&[&good[..], b"trailing"].concat()), "not a zip archive: it has no end record");
    assert_eq!(refusal(&[b"leading", &good[..]].concat()), "the archive is damaged: its index is not where the end record says");
    assert!(refusal(&good[..good.len() - 1]).starts_with("not a zip archive"));
}

#[test]
fn names_stay_inside() {
    for (name, why) in [
        ("../up", "leads out"),
        ("a/../../up", "leads out"),
        ("a/..", "leads out"),
        ("/etc/passwd", "absolute"),
        ("C:/x", "absolute"),
        ("c:x", "absolute"),
        ("..\\up", "backslash"),
        ("a\\b", "backslash"),
        ("nul\0", "control character"),
        ("line\n", "control character"),
        ("", "empty"),
    ] {
        assert!(refused(&[file(name, b"x")]).contains(why), "{name:?}");
    }
    assert!(refused(&[Item { name: vec![0xff, b'a'], ..file("x", b"") }]).contains("not UTF-8"));
    assert!(refused(&[item(".", LINK, b"x")]).contains("mode does not"));
}

#[test]
fn one_place_holds_one_thing() {
    assert!(refused(&[file("a", b"1"), file("a", b"2")]).contains("holds it twice"));
    assert!(refused(&[file("a", b"1"), file("./a", b"2")]).contains("holds it twice"));
    assert!(refused(&[file("a", b"1"), item("a/", DIRECTORY, b"")]).contains("holds it twice"));
    assert!(refused(&[item("a/", DIRECTORY, b""), item("a", LINK, b"b")]).contains("holds it twice"));
    assert!(refused(&[file("a/b", b"1"), file("a", b"2")]).contains("holds it twice"));
    assert!(refused(&[file("a", b"1"), file("a/b", b"2")]).contains("\"a\" is a file"));
    let parent = tempfile::tempdir().unwrap();
    let twice = [dockerfile(), item("a/", DIRECTORY, b""), item("a/", 0o040_700, b"")];
    assert_eq!(unpack_into(parent.path(), &zip(&twice), &Limits::default()).unwrap().entries, 2);
}

#[test]
fn links_stay_inside_and_nothing_goes_through_them() {
    for (target, why) in [
        ("/etc", "is not relative"),
        ("..", "leads out"),
        ("a/../..", "down and up"),
        ("a/../b", "down and up"),
        ("./../up", "leads out"),
        ("\\\\host\\share", "is not relative"),
        ("", "not a path"),
        ("a\0b", "not a path"),
    ] {
        assert!(refused(&[item("link", LINK, target.as_bytes())]).contains(why), "{target:?}");
    }
    assert!(refused(&[item("a/b", LINK, b"../../up")]).contains("leads out"));
    assert!(refused(&[item("link", LINK, b"."), file("link/x", b"1")]).contains("\"link\" is a symbolic link"));
    assert!(refused(&[file("link/x", b"1"), item("link", LINK, b".")]).contains("holds it twice"));
    // Harmless to each reader of components, an escape when followed: p/d is the root, and `..` of that is outside.
    assert!(refused(&[item("p/d", LINK, b".."), item("e", LINK, b"p/d/../x")]).contains("down and up"));
    assert!(refused(&[item("link", LINK, &[b'a'; 2000])]).contains("more than 1024 bytes"));
    assert!(refused(&[item("link", LINK, b"\xff")]).contains("not UTF-8"));
}

#[test]
fn devices_and_their_like_are_refused() {
    for kind in [0o010_644, 0o020_644, 0o060_644, 0o140_644] {
        assert!(refused(&[item("thing", kind, b"")]).contains("neither a file, a directory nor a symbolic link"));
    }
    assert!(refused(&[item("dir/", DIRECTORY, b"content")]).contains("directory with content"));
    assert!(refused(&[item("dir/", FILE, b"")]).contains("mode does not"));
}

#[test]
fn what_cannot_be_read_is_named() {
    assert!(refused(&[Item { flags: 1, ..file("x", b"") }]).contains("\"x\" cannot be unpacked: it is encrypted"));
    assert!(refused(&[Item { method: 99, ..file("x", b"") }]).contains("encrypted"));
    for (method, name) in [(9, "deflate64"), (12, "bzip2"), (14, "lzma"), (93, "zstd"), (7, "unknown")] {
        assert!(
            refused(&[Item { method, ..file("x", b"") }]).contains(&format!("({name}, method {method}) is not supported; use deflate"))
        );
    }
}

#[test]
fn lies_are_found() {
    assert!(refused(&[Item { crc: 1, ..file("x", b"data") }]).contains("checksum"));
    assert!(refused(&[Item { local_name: Some(b"y".to_vec()), ..file("x", b"") }]).contains("differ in name"));
    assert!(refused(&[Item { bytes: 9, ..file("x", b"data") }]).contains("two sizes"));
    assert!(refused(&[Item { bytes: 10, ..deflated("x", &[0; 100]) }]).contains("larger than the archive says"));
    assert!(refused(&[Item { bytes: 101, ..deflated("x", &[0; 100]) }]).contains("smaller than the archive says"));
    assert!(refused(&[Item { data: vec![0xff; 20], ..deflated("x", &[0; 100]) }]).contains("broken"));
    let mut early = deflated("x", &[0; 100]);
    early.data.extend([0; 9]);
    assert!(refused(&[early]).contains("ends early"));
    assert!(refused(&[Item { offset: Some(5), ..file("x", b"") }]).contains("differ in place"));
    assert!(refused(&[Item { offset: Some(u32::MAX - 1), ..file("x", b"") }]).contains("it ends within a local header"));
}

#[test]
fn overlaps_are_refused() {
    // An entry that reaches over the next one is how a bomb unpacks the same bytes again and again.
    let outer = Item { compressed: Some(60), bytes: 60, ..file("outer", b"1234567890") };
    assert!(refused(&[outer, file("next", &[0; 100])]).contains("overlaps what follows it"));
    assert!(refused(&[Item { compressed: Some(4), bytes: 4, ..file("x", b"") }]).contains("overlaps what follows it"));
}

#[test]
fn zip64_nonsense_is_refused() {
    let (huge, short) = (u64::MAX.to_le_bytes(), [1, 0, 8, 0]);
    let extra = [&short[..], &huge].concat();
    assert!(refused(&[Item { bytes: u32::MAX, flags: 8, extra, ..deflated("x", b"") }]).contains("larger than"));
    assert!(refused(&[Item { bytes: u32::MAX, ..deflated("x", b"") }]).contains("record of it is too short"));
    assert!(refused(&[Item { offset: Some(u32::MAX), extra: [&short[..], &huge].concat(), ..file("x", b"") }]).contains("ends within"));
    assert!(refusal(&support::end(u16::MAX, u32::MAX, u32::MAX)).contains("index is not where"));
    let locator = [b"PK\x06\x07\0\0\0\0".as_slice(), &huge, &[1, 0, 0, 0]].concat();
    let bytes = [&[0; 60], &locator[..], &support::end(u16::MAX, u32::MAX, u32::MAX)].concat();
    assert!(refusal(&bytes).contains("zip64 end record is not where it should be"));
    let mut spanning = zip(&[dockerfile()]);
    let disk = spanning.len() - 18;
    spanning[disk] = 1;
    assert!(refusal(&spanning).contains("one part of several"));
}

#[test]
fn limits_hold() {
    let defaults = Limits::default;
    let several = zip(&[dockerfile(), file("a/b/c", &[7; 500]), deflated("zeros", &[0; 200_000])]);
    for (limits, why) in [
        (Limits { archive_bytes: 100, ..defaults() }, "the archive is larger than 100 bytes"),
        (Limits { entries: 2, ..defaults() }, "the archive has 3 entries; the limit is 2"),
        (Limits { entries: 4, ..defaults() }, "the archive has more than 4 files and directories"),
        (Limits { index_bytes: 10, ..defaults() }, "the archive's index is larger than 10 bytes"),
        (Limits { unpacked_bytes: 1000, ..defaults() }, "the archive unpacks to 200513 bytes; the limit is 1000"),
        (Limits { file_bytes: 1000, ..defaults() }, "\"zeros\" cannot be unpacked: it is larger than 1000 bytes"),
        (Limits { path_depth: 2, ..defaults() }, "\"a/b/c\" cannot be unpacked: it is more than 2 folders deep"),
        (Limits { path_bytes: 4, ..defaults() }, "\"Dockerfile\" cannot be unpacked: its name is longer than 4 bytes"),
        (Limits { ratio: 10, ratio_applies_above_bytes: 1000, ..defaults() }, "which is too much for its size"),
    ] {
        assert!(refusal_with(&several, &limits).contains(why), "{why}");
    }
    assert!(refused(&[file(&"x".repeat(256), b"")]).contains("longer than 255 bytes"));
}

#[test]
fn a_bomb_ends_long_before_it_is_unpacked() {
    let bomb = zip(&[dockerfile(), deflated("bomb", &vec![0; 100 << 20])]);
    assert!(bomb.len() < 200_000);
    assert!(refusal(&bomb).contains("unpacks to more than 67108864 bytes"));
}

#[test]
fn a_missing_dockerfile_is_explained() {
    assert_eq!(refusal(&zip(&[])), "the archive has no Dockerfile at its root");
    for (found, hint) in [
        (file("sandbox/Dockerfile", b""), " (found sandbox/Dockerfile: zip the folder's contents, not the folder)"),
        (file("dockerfile", b""), " (found dockerfile: the name must be Dockerfile)"),
        (item("Dockerfile/", DIRECTORY, b""), " (the one it has is a directory)"),
        (item("Dockerfile", LINK, b"x"), " (the one it has is a symbolic link)"),
        (file("Dockerfile.prod", b""), ""),
    ] {
        assert_eq!(refusal(&zip(&[found])), format!("the archive has no Dockerfile at its root{hint}"));
    }
}

#[test]
fn an_abandoned_build_stops() {
    let parent = tempfile::tempdir().unwrap();
    let result = unpack(Cursor::new(zip(&[dockerfile()])), &parent.path().join("root"), &Limits::default(), &AtomicBool::new(true));
    assert!(matches!(result, Err(ArchiveError::Abandoned)));
}

fn any_item() -> impl Strategy<Value = Item> {
    let name = prop_oneof!["[ab./]{1,6}", Just("Dockerfile".to_owned()), Just("../x".to_owned()), ".{0,5}"];
    let mode = prop_oneof![Just(FILE), Just(DIRECTORY), Just(LINK), any::<u32>()];
    let content =
        prop_oneof![proptest::collection::vec(any::<u8>(), 0..200), "[ab./]{0,8}".prop_map(String::into_bytes), Just(vec![0; 5000])];
    (name, mode, content, any::<bool>())
        .prop_map(|(name, mode, content, deflate)| Item { mode, ..if deflate { deflated(&name, &content) } else { file(&name, &content) } })
}

/// Small enough that random archives meet all of them.
fn tight() -> Limits {
    Limits {
        entries: 8,
        unpacked_bytes: 6000,
        file_bytes: 5000,
        path_bytes: 12,
        path_depth: 3,
        ratio: 8,
        ratio_applies_above_bytes: 1000,
        ..Limits::default()
    }
}

/// What a tree may be when it was made within `limits`: counts everything, following no link, and checks where each link leads when it is followed.
fn measure(root: &Path, directory: &Path, entries: &mut u64, bytes: &mut u64) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let metadata = std::fs::symlink_metadata(&path).unwrap();
        *entries += 1;
        if metadata.is_symlink() {
            assert!(path.canonicalize().is_err() || path.canonicalize().unwrap().starts_with(root), "{path:?}");
        } else {
            assert_eq!(metadata.permissions().mode() & 0o7022, 0);
        }
        match metadata.is_dir() {
            true => measure(root, &path, entries, bytes),
            false if metadata.is_file() => *bytes += metadata.len(),
            false => {}
        }
    }
}

fn check(bytes: &[u8]) {
    let parent = tempfile::tempdir().unwrap();
    let limits = tight();
    let result = unpack_into(parent.path(), bytes, &limits);
    assert!(std::fs::read_dir(parent.path()).unwrap().all(|entry| entry.unwrap().file_name() == "root"));
    let root = parent.path().canonicalize().unwrap().join("root");
    if root.exists() {
        let (mut entries, mut written) = (0, 0);
        measure(&root, &root, &mut entries, &mut written);
        assert!(entries <= limits.entries && written <= limits.unpacked_bytes);
        assert!(result.is_err() || root.join("Dockerfile").is_file());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_archives_stay_inside_and_within_limits(items in proptest::collection::vec(any_item(), 0..7)) {
        check(&zip(&[&[dockerfile()], &items[..]].concat()));
    }

    #[test]
    fn mutated_archives_stay_inside_and_within_limits(
        items in proptest::collection::vec(any_item(), 0..5),
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut in any::<Option<prop::sample::Index>>(),
    ) {
        let mut bytes = zip(&[&[dockerfile()], &items[..]].concat());
        for (at, value) in changes {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        check(&bytes);
    }

    #[test]
    fn noise_is_refused(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        check(&bytes);
    }
}
