#![allow(clippy::unwrap_used)]
use super::*;
use crate::{Store, StoreError};

/// A database whose daemon was killed: its journal holds all of its transactions.
async fn killed() -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("live.db");
    let store = Store::open(&path).await.unwrap();
    for number in 0..5 {
        store.setting_or_insert(&format!("setting-{number}"), || vec![number; 3000]).await.unwrap();
    }
    tokio::time::sleep(HEAD_EVERY * 5).await;
    let dead = directory.path().join("dead.db");
    for suffix in ["", "-wal", "-head"] {
        std::fs::copy(path_of(&path, suffix), path_of(&dead, suffix)).unwrap();
    }
    store.close().await;
    (directory, dead)
}

async fn settings(path: &Path) -> Result<usize, StoreError> {
    let store = Store::open(path).await?;
    let mut found = 0;
    for number in 0..5 {
        found += usize::from(store.setting_or_insert(&format!("setting-{number}"), Vec::new).await?.len() == 3000);
    }
    store.close().await;
    Ok(found)
}

#[tokio::test]
async fn a_whole_journal_is_taken() {
    let (_directory, dead) = killed().await;
    assert_eq!(settings(&dead).await.unwrap(), 5);
}

#[tokio::test]
async fn a_flipped_byte_anywhere_in_the_log_is_said() {
    let (_directory, dead) = killed().await;
    let file = path_of(&dead, "-wal");
    let whole = std::fs::read(&file).unwrap();
    // Every part of the header and of the first, a middle and the last frame.
    let (log, _) = Log::open(&whole).unwrap();
    let last = read_head(&path_of(&dead, "-head")).unwrap().frame as usize - 1;
    let mut places: Vec<usize> = (0..HEADER).collect();
    for frame in [0, last / 2, last] {
        places.extend([0, 5, 9, 13, 17, 22, 30, 2000].map(|at| log.offset(frame) + at));
    }
    for at in places {
        let mut damaged = whole.clone();
        damaged[at] ^= 0x10;
        std::fs::write(&file, &damaged).unwrap();
        assert!(check(&dead).unwrap().is_err(), "byte {at}");
        assert!(matches!(Store::open(&dead).await, Err(StoreError::Journal(_))), "byte {at}");
    }
}

#[tokio::test]
async fn what_was_being_written_at_the_end_is_no_damage() {
    let (_directory, dead) = killed().await;
    let file = path_of(&dead, "-wal");
    let whole = std::fs::read(&file).unwrap();
    let (log, _) = Log::open(&whole).unwrap();
    let end = read_head(&path_of(&dead, "-head")).unwrap().frame as usize;
    let mut torn = whole[..log.offset(end)].to_vec();
    // A frame's header and half of its page.
    torn.extend_from_slice(&whole[log.offset(0)..log.offset(0) + 2000]);
    std::fs::write(&file, &torn).unwrap();
    assert_eq!(settings(&dead).await.unwrap(), 5);
}

#[tokio::test]
async fn a_loss_that_is_accepted_leaves_what_came_before() {
    let (_directory, dead) = killed().await;
    let file = path_of(&dead, "-wal");
    let mut damaged = std::fs::read(&file).unwrap();
    let (log, _) = Log::open(&damaged).unwrap();
    let at = log.offset(read_head(&path_of(&dead, "-head")).unwrap().frame as usize - 1) + 100;
    damaged[at] ^= 1;
    std::fs::write(&file, &damaged).unwrap();
    let damage = check(&dead).unwrap().unwrap_err();
    assert_eq!(Store::accept_lost_records(&dead).unwrap(), Some(path_of(&dead, "-wal.damaged")));
    assert!(damage.to_string().contains("-wal is damaged in frame "));
    assert_eq!(settings(&dead).await.unwrap(), 4);
}

#[tokio::test]
async fn a_database_that_is_not_one_is_said() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("x.db");
    let store = Store::open(&path).await.unwrap();
    store.close().await;
    let mut bytes = std::fs::read(&path).unwrap();
    // All but the header of the file.
    bytes[100..].fill(0x5a);
    std::fs::write(&path, bytes).unwrap();
    for suffix in ["-wal", "-shm"] {
        let _ = std::fs::remove_file(path_of(&path, suffix));
    }
    assert!(Store::open(&path).await.is_err());
}
