//! A file of packed weights as memory.
//!
//! Owns the one call that maps a file, and why it is sound.

use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt as _;

use memmap2::Mmap;
use selvedge_kernels::Kept;

/// Whom a file's permissions let write it beside its owner.
const OTHERS_WRITE: u32 = 0o022;

/// A file that is mapped for as long as this lives, and kept open with its lock.
#[derive(Debug)]
pub(super) struct Map {
    bytes: Mmap,
    _file: File,
}

impl Map {
    /// Maps a file of packed weights that has its name, or had it until it was removed.
    #[expect(unsafe_code, reason = "whether a file changes, the compiler cannot know")]
    pub(super) fn of(file: File) -> io::Result<Self> {
        let found = file.metadata()?;
        let own = found.uid() == rustix::process::geteuid().as_raw();
        if !found.is_file() || !own || found.mode() & OTHERS_WRITE != 0 {
            return Err(io::Error::other("others than this user may write it, or it is no file"));
        }
        // SAFETY: what the slice shows must neither change nor vanish. A file of packed weights is
        // written under the name of a draft and renamed once its last byte is written (`Draft`);
        // after that no code here writes to it, changes its length or has it written: it is only
        // read, and removed by name, which leaves the file itself to whoever has it mapped. It is
        // this user's, and nobody else may write it, as was just seen. What remains is another
        // program of the same user that changes the file behind our back, as it could change this
        // process' memory itself: tiles are numbers of which every bit pattern is one, so that
        // wrong numbers would be read. One that cuts the file short, and a disk that fails to read
        // a page, end the process by a signal (SIGBUS) and let nothing go on with it.
        let bytes = unsafe { Mmap::map(&file) }?;
        Ok(Self { bytes, _file: file })
    }
}

impl Kept for Map {
    fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}
