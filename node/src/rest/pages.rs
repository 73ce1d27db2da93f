//! The pages of this program's own code that are in its memory.
//!
//! Owns how they are found and given back. Linux keeps the program's file in its cache as long as
//! nobody needs that memory, so that what is wanted again comes from there, sixteen pages at a time
//! and without the disk. On other systems there is nothing to do.

use std::io;

/// Most text that is read of what the kernel tells about a process' memory. Each mapping has some
/// 700 bytes and a node has a few hundred; the kernel allows 65,530.
#[cfg(target_os = "linux")]
const LONGEST: u64 = 4 << 20;

/// Gives back the pages of the program's code; their bytes as they were counted before.
///
/// # Errors
/// When the kernel tells nothing of this process' memory, or refuses.
#[cfg(not(target_os = "linux"))]
pub(super) fn give_back() -> io::Result<u64> {
    Ok(0)
}

/// Gives back the pages of the program's code; their bytes as they were counted before.
///
/// # Errors
/// When the kernel tells nothing of this process' memory, or refuses.
#[cfg(target_os = "linux")]
pub(super) fn give_back() -> io::Result<u64> {
    let mut given = 0;
    for code in own_code()? {
        code.forget()?;
        given += code.resident;
    }
    Ok(given)
}

/// A mapping of this program's file that holds code.
#[cfg(target_os = "linux")]
#[derive(Debug, PartialEq, Eq)]
struct Code {
    start: usize,
    bytes: usize,
    /// Bytes of it that are in memory.
    resident: u64,
}

#[cfg(target_os = "linux")]
impl Code {
    /// Has the kernel take its pages out of this process' memory.
    #[expect(unsafe_code, reason = "there is no safe call for a mapping that the loader made")]
    fn forget(&self) -> io::Result<()> {
        use std::ptr::without_provenance_mut;

        use rustix::mm::{Advice, madvise};

        // SAFETY: `own_code` takes only mappings of a file that are private, were told not to be
        // writable (`r-xp`) and of which no page was ever changed (`Anonymous: 0`). After
        // MADV_DONTNEED an access to such a mapping reads the same page of the file again
        // (madvise(2)), and the file of a running program cannot be written (ETXTBSY). So no byte
        // that this process can see changes. Were the mapping gone meanwhile the call would fail
        // or meet another one; the program itself is never unloaded.
        unsafe { madvise(without_provenance_mut(self.start), self.bytes, Advice::LinuxDontNeed) }
            .map_err(io::Error::from)
    }
}

/// The mappings that hold this program's code, as the kernel tells (proc_pid_smaps(5)).
#[cfg(target_os = "linux")]
fn own_code() -> io::Result<Vec<Code>> {
    use std::io::Read as _;

    let program = std::fs::read_link("/proc/self/exe")?;
    let mut told = String::new();
    std::fs::File::open("/proc/self/smaps")?.take(LONGEST).read_to_string(&mut told)?;
    Ok(code_of(&told, &program.to_string_lossy()))
}

/// The mappings of `program` in what the kernel told that hold code nobody has changed.
#[cfg(target_os = "linux")]
fn code_of(told: &str, program: &str) -> Vec<Code> {
    let mut found = Vec::new();
    let mut lines = told.lines();
    while let Some(line) = lines.next() {
        let Some(range) = code_range(line, program) else { continue };
        // Each mapping's facts end with its flags.
        let facts = lines.by_ref().take_while(|line| !line.starts_with("VmFlags:"));
        let (mut resident, mut changed) = (None, None);
        for (name, value) in facts.filter_map(|line| line.split_once(':')) {
            match name {
                "Rss" => resident = kilobytes(value),
                "Anonymous" => changed = kilobytes(value),
                _ => {}
            }
        }
        if let (Some(resident), Some(0)) = (resident, changed) {
            found.push(Code { start: range.0, bytes: range.1, resident });
        }
    }
    found
}

/// The start and length of a mapping, if the line begins one of the program's that holds code.
#[cfg(target_os = "linux")]
fn code_range(line: &str, program: &str) -> Option<(usize, usize)> {
    let (head, file) = line.split_once('/')?;
    let mut words = head.split_ascii_whitespace();
    let (range, access) = (words.next()?, words.next()?);
    if access != "r-xp" || file != program.strip_prefix('/')? {
        return None;
    }
    let (start, end) = range.split_once('-')?;
    let start = usize::from_str_radix(start, 16).ok()?;
    let end = usize::from_str_radix(end, 16).ok()?;
    Some((start, end.checked_sub(start)?))
}

#[cfg(target_os = "linux")]
fn kilobytes(value: &str) -> Option<u64> {
    value.trim().strip_suffix(" kB")?.parse::<u64>().ok()?.checked_mul(1_024)
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::fs::File;
    use std::os::unix::fs::FileExt as _;

    use super::*;

    const TOLD: &str = "\
5500-5600 r--p 00000000 fe:00 7 /bin/node
Rss:                 100 kB
Anonymous:             0 kB
VmFlags: rd mr mw me
5600-7600 r-xp 00000100 fe:00 7 /bin/node
Size:               8192 kB
Rss:                1500 kB
Anonymous:             0 kB
VmFlags: rd ex mr mw me
7600-8600 r-xp 00000100 fe:00 7 /bin/node
Rss:                1500 kB
Anonymous:             4 kB
VmFlags: rd ex mr mw me
8600-8700 rwxp 00000100 fe:00 7 /bin/node
Rss:                1500 kB
Anonymous:             0 kB
VmFlags: rd ex mr mw me
9000-9100 r-xp 00000000 fe:00 9 /lib/other
Rss:                1500 kB
Anonymous:             0 kB
VmFlags: rd ex mr mw me
a000-b000 r-xp 00000000 00:00 0 [vdso]
";

    #[test]
    fn only_unchanged_code_of_the_program_is_taken() {
        let code = Code { start: 0x5600, bytes: 0x2000, resident: 1_500 << 10 };
        assert_eq!(code_of(TOLD, "/bin/node"), [code]);
        assert_eq!(code_of(TOLD, "/bin/nod"), []);
        assert_eq!(code_of("5600-55 r-xp 0 0 7 /bin/node\nRss: x kB", "/bin/node"), []);
    }

    /// The bytes of a mapping as this process sees them.
    fn seen(code: &Code) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; code.bytes];
        File::open("/proc/self/mem")?.read_exact_at(&mut bytes, code.start as u64)?;
        Ok(bytes)
    }

    #[test]
    fn what_was_given_back_is_read_again_as_it_was() {
        let code = own_code().expect("the kernel tells");
        assert_eq!(code.len(), 1, "{code:?}");
        let before = seen(&code[0]).expect("its own memory");
        // All of it was just read, and other tests run in this process: some of it comes back.
        assert!(give_back().expect("given back") > 0);
        assert!(own_code().expect("the kernel tells")[0].resident < code[0].bytes as u64 / 2);
        assert!(seen(&code[0]).expect("its own memory") == before, "the code differs");
    }
}
