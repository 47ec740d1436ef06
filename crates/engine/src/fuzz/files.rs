//! Whole files made of any bytes, read as a repair reads them: the readers that trust the least must not fall over
//! anything. The bytes choose headers that are nearly right, which a fuzzer seldom finds by itself.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::Version;
use crate::blocks::format::superblock::ManifestRef;
use crate::blocks::format::{BlockHeader, BlockKind};
use crate::blocks::salvage::BlockRemains;
use crate::blocks::{Identity, Superblock};
use crate::disk::{Disk, DiskFile};
use crate::keyspace::hash::KeyHasher;
use crate::log::format::{FileHeader, FrameHeader, HEADER_BLOCK_BYTES};
use crate::log::salvage::LogRemains;

const BLOCK: usize = 4096;
const BLOCKS_MAX: usize = 64;
const STORE_ID: [u8; 16] = *b"a store's number";

/// Files in memory, to be read.
#[derive(Default)]
struct Files(BTreeMap<PathBuf, Arc<Vec<u8>>>);

struct File(Arc<Vec<u8>>);

impl DiskFile for File {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let rest = usize::try_from(offset).ok().and_then(|offset| self.0.get(offset..)).unwrap_or_default();
        let count = rest.len().min(buffer.len());
        buffer[..count].copy_from_slice(&rest[..count]);
        Ok(count)
    }

    fn write_all_at(&self, _: &[u8], _: u64) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn sync_data(&self) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.0.len() as u64)
    }
}

impl Disk for Files {
    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        self.open_read_only(path)
    }

    fn open_read_only(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let bytes = self.0.get(path).ok_or(io::ErrorKind::NotFound)?;
        Ok(Box::new(File(Arc::clone(bytes))))
    }

    fn create(&self, _: &Path) -> io::Result<Box<dyn DiskFile>> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn create_directory(&self, _: &Path) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn rename(&self, _: &Path, _: &Path) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn remove(&self, _: &Path) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn list(&self, _: &Path) -> io::Result<Vec<PathBuf>> {
        Ok(self.0.keys().cloned().collect())
    }

    fn sync_directory(&self, _: &Path) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn lock(&self, _: &Path) -> io::Result<Box<dyn Send + Sync>> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }
}

/// Takes bytes off the front.
struct Bytes<'a>(&'a [u8]);

impl<'a> Bytes<'a> {
    fn take(&mut self, count: usize) -> &'a [u8] {
        let (front, rest) = self.0.split_at(count.min(self.0.len()));
        self.0 = rest;
        front
    }

    fn number(&mut self) -> u64 {
        self.take(1).first().copied().map_or(0, u64::from)
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Reads a block file of blocks that stand where their headers say, with whatever in them, without and with a superblock.
pub(super) fn block_remains(data: &[u8]) {
    let mut bytes = Bytes(data);
    let mut file = vec![0; 2 * BLOCK];
    while !bytes.is_empty() && file.len() < BLOCKS_MAX * BLOCK {
        let number = (file.len() / BLOCK) as u32;
        let kind = BlockKind::ALL[bytes.number() as usize % BlockKind::ALL.len()];
        let detail = (bytes.number() | bytes.number() << 8) as u16;
        let header = BlockHeader { kind, detail, block: number, sequence: 1 + bytes.number() % 4 };
        let length = (bytes.number() as usize * 16).min(BLOCK - 16);
        let part = bytes.take(length);
        let mut block = vec![0; BLOCK];
        header.encode_into(&mut block);
        block[16..16 + part.len()].copy_from_slice(part);
        file.extend(block);
    }
    read_blocks(file.clone(), None);
    let blocks = (file.len() / BLOCK) as u32;
    let manifest = data.first().map_or(0, |byte| u32::from(*byte) % blocks.max(1));
    let of_manifest = &file[manifest as usize * BLOCK..][..BLOCK];
    let superblock = Superblock {
        identity: Identity { store_id: STORE_ID, hash_seed: [7; 16] },
        block_bytes: BLOCK as u32,
        file_blocks: blocks.max(3),
        auto: true,
        sequence: 2,
        cut: Version(9),
        log_position: 0,
        parent_store_id: [0; 16],
        fork_version: Version::ZERO,
        entries: 3,
        live_bytes: 16,
        manifest: ManifestRef { block: manifest, crc: crc32c::crc32c(of_manifest), bytes: u64::from(blocks) * 7 },
    };
    file[..256].copy_from_slice(&superblock.encode());
    read_blocks(file, Some(&superblock));
}

fn read_blocks(file: Vec<u8>, superblock: Option<&Superblock>) {
    let path = Path::new("/blocks");
    let disk = Files(BTreeMap::from([(path.to_owned(), Arc::new(file))]));
    let Ok(Some(remains)) = BlockRemains::open(&disk, path) else { return };
    let hasher = KeyHasher::new(7);
    if let Some(superblock) = superblock {
        assert_eq!(remains.superblocks.len(), 1, "a right superblock is found");
        let _ = remains.view(superblock).and_then(|view| view.check(&hasher));
        let _ = remains.rebuild(superblock, Version(10), 0);
    }
    let Ok(roots) = remains.roots(superblock) else { return };
    let mut records = 0u32;
    let hasher = superblock.map(|_| &hasher);
    let _ = remains.read(&roots, hasher, &mut |_| records += 1);
    assert!(records as usize <= BLOCKS_MAX * BLOCK, "each record is passed on once");
}

/// Reads a log of files whose headers and frames are right or nearly so.
pub(super) fn log_remains(data: &[u8]) {
    let mut bytes = Bytes(data);
    let mut files = BTreeMap::new();
    let mut position = 0;
    for number in 1..=3u64 {
        let header = FileHeader {
            store_id: STORE_ID,
            sequence: number,
            generation: 1,
            start_position: position,
            epoch: 1,
            replay_from: bytes.number() * 8,
            checkpoint: Version(bytes.number()),
            previous_crc: 0,
            durable_position: bytes.number() * 8,
            is_closed: bytes.number() % 2 == 1,
        };
        let mut file =
            if bytes.number() % 4 == 0 { vec![0; HEADER_BLOCK_BYTES as usize] } else { header.encode_block() };
        let (mut previous_crc, mut version) = (0, bytes.number());
        for _ in 0..bytes.number() % 12 {
            let payload = bytes.take(usize::from(bytes.0.first().copied().unwrap_or(0)));
            version += 1;
            let frame = FrameHeader {
                payload_bytes: payload.len() as u32,
                records: u32::from(!payload.is_empty()),
                payload_crc: crc32c::crc32c(payload),
                previous_crc,
                store_id: STORE_ID,
                epoch: 1,
                position,
                durable_position: position.min(bytes.number() * 16),
                first_version: Version(version),
                last_version: Version(version),
                ..FrameHeader::default()
            };
            let (encoded, crc) = frame.encode();
            (previous_crc, position) = (crc, position + frame.frame_bytes());
            let at = file.len();
            file.extend(encoded);
            file.extend(payload);
            if bytes.number() % 8 == 0 {
                let place = at + bytes.number() as usize % (file.len() - at);
                file[place] ^= 1;
            }
        }
        files.insert(PathBuf::from(format!("/log/{number:08}.log")), Arc::new(file));
    }
    let from = bytes.number() * 8;
    let disk: Arc<dyn Disk> = Arc::new(Files(files));
    let Ok(remains) = LogRemains::find(&disk, Path::new("/log"), None, None) else { return };
    let mut newest = Version::ZERO;
    let _ = remains.replay(from, &mut |frame| {
        assert!(frame.first_version > newest, "what is delivered rises");
        newest = frame.last_version;
        frame.records().try_for_each(|record| record.map(drop)).or(Ok(()))
    });
}
