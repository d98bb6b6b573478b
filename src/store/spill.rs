//! Where usage waits on disk while the store is away: a bounded file of this process' own in the data directory.
//!
//! A line a batch, as it was to be stored, with its writer and number: so whatever is read twice (after a crash, after
//! an answer that was lost) still counts once. A process locks its file; at start it takes over those that nobody locks
//! any more. A line that was cut off by a crash is left out. Nothing secret goes in: it is what the log would hold.
//!
//! All of it blocks: the writer calls it through `base::tasks`. When it fails (no directory, no space) usage waits in
//! memory as before, and rows beyond that are dropped and counted there.

mod line;

use super::rows::UsageBatch;
use std::collections::VecDeque;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, BufRead as _, BufReader, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

const PREFIX: &str = "usage-";
const SUFFIX: &str = ".spill";
/// A line longer than any batch can be.
const MAX_LINE: u64 = 64 << 20;

/// The files of one process: its own, and those it took over.
#[derive(Debug)]
pub(super) struct Spill {
    dir: PathBuf,
    epoch: u64,
    max_bytes: u64,
    /// To be read, oldest first; our own is the last.
    sources: VecDeque<Source>,
    /// Our own is among the sources.
    own: bool,
}

#[derive(Debug)]
struct Source {
    path: PathBuf,
    /// Holds the lock.
    file: File,
    bytes: u64,
    /// What was stored already.
    read: u64,
}

/// A batch out of a file, and what to say when it is stored.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) batch: Arc<UsageBatch>,
    /// Its length in the file.
    line: u64,
}

impl Spill {
    /// For the writer `epoch`, in `dir`, at most `max_bytes`. Takes over what processes that ended left behind.
    pub(super) fn open(dir: &Path, epoch: u64, max_bytes: u64) -> Self {
        let mut spill = Self { dir: dir.to_owned(), epoch, max_bytes, sources: VecDeque::new(), own: false };
        let found = fs::read_dir(dir).into_iter().flatten().flatten();
        let mut paths: Vec<_> = found.map(|entry| entry.path()).filter(|path| is_spill(path)).collect();
        paths.sort();
        for path in paths {
            match Source::adopt(path.clone()) {
                Ok(Some(source)) => spill.sources.push_back(source),
                Ok(None) => {}
                Err(error) => tracing::warn!(%error, file = %path.display(), "usage spilled earlier cannot be read"),
            }
        }
        spill
    }

    /// Nothing waits.
    pub(super) fn is_empty(&self) -> bool {
        self.sources.is_empty()
    }

    /// Puts `batch` at the end; `false`: there is no room.
    pub(super) fn push(&mut self, batch: &UsageBatch) -> io::Result<bool> {
        let line = line::write(batch)?;
        if !self.own {
            self.sources.push_back(Source::create(&self.dir, self.epoch)?);
            self.own = true;
        }
        let Some(own) = self.sources.back_mut() else { return Ok(false) };
        if own.bytes + line.len() as u64 > self.max_bytes {
            return Ok(false);
        }
        let written = own.file.seek(SeekFrom::Start(own.bytes)).and_then(|_| own.file.write_all(&line));
        if let Err(error) = written {
            // Half a line would hide the next one.
            let _ = own.file.set_len(own.bytes);
            return Err(error);
        }
        own.bytes += line.len() as u64;
        Ok(true)
    }

    /// The oldest batch that waits. Lines that do not read are passed over.
    pub(super) fn next(&mut self) -> io::Result<Option<Waiting>> {
        while let Some(source) = self.sources.front_mut() {
            match source.next()? {
                Some(waiting) => return Ok(Some(waiting)),
                None => self.drop_first(),
            }
        }
        Ok(None)
    }

    /// `waiting`, the last that [`Spill::next`] gave, is stored.
    pub(super) fn done(&mut self, waiting: &Waiting) {
        let Some(source) = self.sources.front_mut() else { return };
        source.read += waiting.line;
        if source.read >= source.bytes {
            self.drop_first();
        }
    }

    /// To the disk, so that a power cut takes nothing either.
    pub(super) fn sync(&self) -> io::Result<()> {
        self.sources.iter().try_for_each(|source| source.file.sync_data())
    }

    fn drop_first(&mut self) {
        if let Some(source) = self.sources.pop_front() {
            self.own &= !self.sources.is_empty();
            // Left behind it would be read once more, which does nothing.
            let _ = fs::remove_file(&source.path);
        }
    }
}

impl Source {
    fn create(dir: &Path, epoch: u64) -> io::Result<Self> {
        DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        let path = dir.join(format!("{PREFIX}{epoch:016x}{SUFFIX}"));
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).mode(0o600).open(&path)?;
        // A random name of our own: whoever looks in between finds it locked or empty.
        file.try_lock().map_err(io::Error::other)?;
        Ok(Self { path, file, bytes: 0, read: 0 })
    }

    /// `None`: the process it belongs to lives.
    fn adopt(path: PathBuf) -> io::Result<Option<Self>> {
        let file = OpenOptions::new().read(true).write(true).open(&path)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(fs::TryLockError::WouldBlock) => return Ok(None),
            Err(fs::TryLockError::Error(e)) => return Err(e),
        }
        let bytes = file.metadata()?.len();
        Ok(Some(Self { path, file, bytes, read: 0 }))
    }

    fn next(&mut self) -> io::Result<Option<Waiting>> {
        self.file.seek(SeekFrom::Start(self.read))?;
        let mut lines = BufReader::new((&self.file).take(self.bytes - self.read));
        let mut text = Vec::new();
        loop {
            text.clear();
            let length = lines.by_ref().take(MAX_LINE).read_until(b'\n', &mut text)? as u64;
            if length == 0 {
                return Ok(None);
            }
            if let Some(batch) = line::read(&text) {
                return Ok(Some(Waiting { batch: Arc::new(batch), line: length }));
            }
            self.read += length;
            tracing::warn!(file = %self.path.display(), "a line of spilled usage does not read: it is left out");
        }
    }
}

fn is_spill(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    name.starts_with(PREFIX) && name.ends_with(SUFFIX)
}

#[cfg(test)]
#[path = "spill_tests.rs"]
mod tests;
