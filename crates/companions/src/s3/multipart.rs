//! Multipart uploads on disk: begun, filled part by part, then joined into one object or given up.
//!
//! An upload id is a uuid of ours and nothing else ever becomes a path. Blocking, like the store.

use std::fs::{self, File};
use std::io::{self, BufWriter, Read, Write};
use std::path::PathBuf;

use s3s::checksum::ChecksumHasher;
use s3s::crypto::{Checksum as _, Md5};
use s3s::dto::CompletedPart;
use s3s::{S3Result, s3_error};
use uuid::Uuid;

use super::checksums::hasher;
use super::receive::{decode_base64, new_data};
use super::record::{Checksums, Moment, ObjectRecord, PartRecord, UploadRecord};
use super::store::{Staged, Store, StoreError, read_record, read_records};

/// All parts but the last (documented).
const MIN_PART_BYTES: u64 = 5 * 1024 * 1024;
const MAX_PARTS: i32 = 10_000;
const COPY_BUFFER_BYTES: usize = 256 * 1024;

pub(super) fn check_part_number(number: i32) -> S3Result<()> {
    match (1..=MAX_PARTS).contains(&number) {
        true => Ok(()),
        false => Err(s3_error!(InvalidArgument, "Part number must be an integer between 1 and {MAX_PARTS}, inclusive.")),
    }
}

impl Store {
    pub(super) fn begin_upload(&self, record: &UploadRecord) -> Result<Uuid, StoreError> {
        self.bucket_exists(&record.bucket)?;
        let id = Uuid::new_v4();
        fs::create_dir(self.upload_folder(id))?;
        self.write_record(&self.upload_folder(id).join("upload.json"), record)?;
        Ok(id)
    }

    /// The upload, if it is one of this bucket and key.
    pub(super) fn upload(&self, id: &str, bucket: &str, key: &str) -> Result<(Uuid, UploadRecord), StoreError> {
        let id = Uuid::parse_str(id).map_err(|_| StoreError::NoSuchUpload)?;
        read_record::<UploadRecord>(&self.upload_folder(id).join("upload.json"))?
            .filter(|record| record.bucket == bucket && record.key == key)
            .map(|record| (id, record))
            .ok_or(StoreError::NoSuchUpload)
    }

    pub(super) fn uploads_of(&self, bucket: &str) -> Result<Vec<(Uuid, UploadRecord)>, StoreError> {
        let mut uploads = Vec::new();
        for entry in fs::read_dir(self.uploads())? {
            let path = entry?.path();
            let id = path.file_name().and_then(|name| name.to_str()).and_then(|name| Uuid::parse_str(name).ok());
            if let (Some(id), Some(record)) = (id, read_record::<UploadRecord>(&path.join("upload.json"))?)
                && record.bucket == bucket
            {
                uploads.push((id, record));
            }
        }
        uploads.sort_by(|(_, a), (_, b)| (&a.key, a.initiated).cmp(&(&b.key, b.initiated)));
        Ok(uploads)
    }

    pub(super) fn put_part(&self, upload: Uuid, record: &PartRecord, staged: &Staged) -> Result<(), StoreError> {
        let path = self.part_record(upload, record.number);
        let previous = read_record::<PartRecord>(&path)?;
        fs::rename(staged.path(), self.data(record.data))?;
        self.write_record(&path, record)?;
        if let Some(previous) = previous {
            self.discard(previous.data);
        }
        Ok(())
    }

    pub(super) fn parts(&self, upload: Uuid) -> Result<Vec<PartRecord>, StoreError> {
        let mut parts: Vec<PartRecord> = read_records(&self.upload_folder(upload), "part-")?;
        parts.sort_by_key(|part| part.number);
        Ok(parts)
    }

    pub(super) fn end_upload(&self, upload: Uuid) -> Result<(), StoreError> {
        let parts = self.parts(upload)?;
        fs::remove_dir_all(self.upload_folder(upload))?;
        parts.iter().for_each(|part| self.discard(part.data));
        Ok(())
    }

    /// The parts the client names, which must be parts there are, in order, each large enough.
    pub(super) fn chosen_parts(&self, upload: Uuid, named: &[CompletedPart]) -> S3Result<Vec<PartRecord>> {
        let mut chosen: Vec<PartRecord> = Vec::new();
        for (index, part) in named.iter().enumerate() {
            let number = part.part_number.unwrap_or_default();
            let found = read_record::<PartRecord>(&self.part_record(upload, number))?;
            let said = Checksums::from_dto(s3s::dto::Checksum {
                checksum_crc32: part.checksum_crc32.clone(),
                checksum_crc32c: part.checksum_crc32c.clone(),
                checksum_crc64nvme: part.checksum_crc64nvme.clone(),
                checksum_sha1: part.checksum_sha1.clone(),
                checksum_sha256: part.checksum_sha256.clone(),
                checksum_type: None,
            });
            let matches = |found: &PartRecord| {
                part.e_tag.as_ref().is_none_or(|e_tag| e_tag.value() == found.etag) && said.check(&found.checksums).is_ok()
            };
            let Some(found) = found.filter(matches) else {
                return Err(s3_error!(InvalidPart, "Part {number} was not uploaded, or is not what its ETag or checksum says."));
            };
            if chosen.last().is_some_and(|last| last.number >= number) {
                return Err(s3_error!(InvalidPartOrder));
            }
            if index + 1 < named.len() && found.size < MIN_PART_BYTES {
                return Err(s3_error!(EntityTooSmall, "Part {number} is smaller than the minimum of 5 MiB."));
            }
            chosen.push(found);
        }
        match chosen.is_empty() {
            true => Err(s3_error!(InvalidRequest, "You must specify at least one part.")),
            false => Ok(chosen),
        }
    }

    /// One staged file of the parts, and the record of the object it is to be.
    pub(super) fn join(&self, upload: &UploadRecord, parts: &[PartRecord], said: &Checksums) -> S3Result<(Staged, ObjectRecord)> {
        let algorithm = upload.algorithm.as_deref().or(said.any());
        let full_object = upload.full_object || algorithm == Some("CRC64NVME");
        let mut whole = hasher(said, if full_object { algorithm.as_slice() } else { &[] });
        let staged = self.stage();
        let size = self.concatenate(&staged, parts, &mut whole)?;
        let mut checksums = Checksums::from_dto(whole.finalize());
        if full_object {
            said.check(&checksums)?;
        } else {
            checksums = composite(algorithm, parts);
        }
        let record = ObjectRecord {
            key: upload.key.clone(),
            data: new_data(),
            size,
            etag: etag_of_parts(parts)?,
            modified: Moment::now(),
            parts: u32::try_from(parts.len()).ok(),
            checksums,
            attributes: upload.attributes.clone(),
        };
        Ok((staged, record))
    }

    fn concatenate(&self, staged: &Staged, parts: &[PartRecord], whole: &mut ChecksumHasher) -> Result<u64, StoreError> {
        let mut file = BufWriter::with_capacity(COPY_BUFFER_BYTES, File::create(staged.path())?);
        let mut buffer = vec![0; COPY_BUFFER_BYTES];
        let mut size = 0;
        for part in parts {
            let mut bytes = File::open(self.data(part.data))?;
            loop {
                match bytes.read(&mut buffer)? {
                    0 => break,
                    length => {
                        whole.update(&buffer[..length]);
                        file.write_all(&buffer[..length])?;
                        size += length as u64;
                    }
                }
            }
        }
        file.flush()?;
        file.get_ref().sync_all()?;
        Ok(size)
    }

    fn upload_folder(&self, id: Uuid) -> PathBuf {
        self.uploads().join(id.to_string())
    }

    fn part_record(&self, upload: Uuid, number: i32) -> PathBuf {
        self.upload_folder(upload).join(format!("part-{number}.json"))
    }
}

/// MD5 of the parts' MD5s, and their number (observed).
fn etag_of_parts(parts: &[PartRecord]) -> Result<String, StoreError> {
    let mut md5 = Md5::new();
    for part in parts {
        md5.update(&hex::decode(&part.etag).map_err(io::Error::other)?);
    }
    Ok(format!("{}-{}", hex::encode(md5.finalize()), parts.len()))
}

/// The checksum of the parts' checksums, and their number (documented); none when a part has none.
fn composite(algorithm: Option<&str>, parts: &[PartRecord]) -> Checksums {
    let mut composite = Checksums { composite: true, ..Checksums::default() };
    let Some(algorithm) = algorithm else { return composite };
    let digests: Option<Vec<Vec<u8>>> = parts.iter().map(|part| part.checksums.get(algorithm).and_then(decode_base64)).collect();
    if let Some(digests) = digests {
        let mut of_digests = hasher(&Checksums::default(), &[algorithm]);
        of_digests.update(&digests.concat());
        let value = Checksums::from_dto(of_digests.finalize());
        if let Some(value) = value.get(algorithm) {
            composite.set(algorithm, format!("{value}-{}", parts.len()));
        }
    }
    composite
}
