#![allow(clippy::unwrap_used)]
use super::*;

fn engine() -> EngineIdentity {
    EngineIdentity { engine: "qemu-tcg".into(), version: "7.2.1".into(), cpu_profile: "x86-64-v2".into(), tsc_khz: 2_900_000 }
}

fn written() -> (tempfile::TempDir, SnapshotFiles) {
    let directory = tempfile::tempdir().unwrap();
    let files = SnapshotFiles(directory.path().join("machines/m/snapshot"));
    std::fs::create_dir_all(&files.0).unwrap();
    let mut sums = Sums::new();
    for file in [SnapshotFile::State, SnapshotFile::Memory, SnapshotFile::MemoryRuns, SnapshotFile::Disk] {
        std::fs::write(file.path(&files), file.name().repeat(1000)).unwrap();
        sums.insert(
            file,
            if file == SnapshotFile::Disk { Sum::standing(&file.path(&files)) } else { Sum::of(&file.path(&files)) }.unwrap(),
        );
    }
    let shape = MachineShape { vcpus: 1, memory_mib: 512, disk_gib: 8 };
    Manifest::new(engine(), shape, 1, sums).write(&files).unwrap();
    (directory, files)
}

fn load(files: &SnapshotFiles) -> Result<Manifest, HostError> {
    Manifest::load(files, &engine())
}

#[test]
fn a_manifest_is_what_was_written() {
    let (_directory, files) = written();
    let manifest = load(&files).unwrap();
    assert_eq!((manifest.shape.memory_mib, manifest.files.len()), (512, 4));
    manifest.check_own(&files).unwrap();
}

#[test]
fn a_flipped_byte_in_any_file_is_said_with_its_name() {
    let (_directory, files) = written();
    let all = [SnapshotFile::State, SnapshotFile::Memory, SnapshotFile::MemoryRuns, SnapshotFile::Disk];
    for path in all.iter().map(|file| file.path(&files)).chain([files.manifest()]) {
        let whole = std::fs::read(&path).unwrap();
        for at in [0, whole.len() / 2, whole.len() - 2] {
            // Changes of time are what the disk's check goes by.
            std::thread::sleep(std::time::Duration::from_millis(10));
            let mut damaged = whole.clone();
            damaged[at] ^= 0x55;
            std::fs::write(&path, damaged).unwrap();
            let name = path.file_name().unwrap().to_str().unwrap();
            let outcome = load(&files).and_then(|manifest| manifest.check_own(&files));
            let Err(HostError::SnapshotDamaged(reason)) = outcome else { panic!("{name} at {at}: {outcome:?}") };
            assert!(reason.starts_with("machines/m/") && reason.contains(name), "{reason}");
        }
        std::fs::write(&path, whole).unwrap();
    }
    load(&files).unwrap().check_own(&files).unwrap();
    std::fs::remove_file(files.memory()).unwrap();
    assert!(matches!(load(&files).unwrap().check_own(&files), Err(HostError::SnapshotDamaged(reason)) if reason.contains("memory")));
}

#[test]
fn another_engine_or_clock_is_refused() {
    let (_directory, files) = written();
    for other in [
        EngineIdentity { version: "10.0".into(), ..engine() },
        EngineIdentity { engine: "qemu-kvm".into(), ..engine() },
        EngineIdentity { cpu_profile: "host".into(), ..engine() },
        EngineIdentity { tsc_khz: 2_000_000, ..engine() },
    ] {
        assert!(matches!(Manifest::load(&files, &other), Err(HostError::SnapshotRefused(_))));
    }
    assert!(Manifest::load(&files, &EngineIdentity { tsc_khz: 2_900_100, ..engine() }).is_ok());
}

/// As the first release wrote them: `fixtures/` must never be edited.
#[test]
fn a_snapshot_of_format_1_is_read_and_what_it_has_sums_for_is_checked() {
    let directory = tempfile::tempdir().unwrap();
    let files = SnapshotFiles(directory.path().join("snapshot"));
    std::fs::create_dir(&files.0).unwrap();
    // Which agents this version speaks to is another question.
    let generation = format!("\"agent_generation\": {}", emberbox_agent_protocol::GENERATION);
    let text = include_str!("fixtures/manifest-1.json").replace("\"agent_generation\": 1", &generation);
    std::fs::write(files.manifest(), text).unwrap();
    std::fs::write(files.state(), b"state").unwrap();
    std::fs::write(files.memory_runs(), b"runs").unwrap();
    let manifest = load(&files).unwrap();
    assert_eq!((manifest.shape, manifest.memory_bytes), (MachineShape { vcpus: 1, memory_mib: 2048, disk_gib: 8 }, 31_457_280));
    manifest.check_own(&files).unwrap();
    std::fs::write(files.memory_runs(), b"ruins").unwrap();
    assert!(matches!(manifest.check_own(&files), Err(HostError::SnapshotDamaged(reason)) if reason.contains("memory.runs")));
}

#[test]
fn a_format_from_the_future_is_refused_and_named() {
    let (_directory, files) = written();
    document::write(&files.manifest(), 3, &serde_json::json!({})).unwrap();
    assert!(matches!(load(&files), Err(HostError::SnapshotRefused(reason)) if reason.contains("format 3")));
}
