//! Has the kernel forget where the code of the program is mapped. What runs is mapped again as it is reached, from the
//! page cache; what only ran while something was read stays unmapped. Frees no memory of the process's own.
//!
//! The kernel maps 64 KiB around each place that runs, and never takes a mapping away by itself: after a start nearly
//! all code is resident, a sixth of which runs afterwards.

use std::io;
use std::ops::Range;

use rustix::mm::Advice;

/// Gives the mapping of the program's code back, and says how many bytes of address space that is. Breakpoints that a
/// debugger or a uprobe has set by then are lost.
///
/// # Errors
/// When the code is not mapped from a file as code is, or the kernel refuses.
#[allow(unsafe_code, reason = "nothing else gives a mapping back")]
pub fn give_back_code() -> io::Result<usize> {
    let maps = std::fs::read_to_string("/proc/self/maps")?;
    let here = give_back_code as fn() -> io::Result<usize> as usize;
    let code = code_around(&maps, here).ok_or(io::ErrorKind::Unsupported)?;
    let start = std::ptr::with_exposed_provenance_mut(code.start);
    // SAFETY: the range is one mapping, private, of a file, and not writable: each of its pages is what the file has
    // there, and is read from there again (madvise(2), MADV_DONTNEED). That it can be executed tells it from constants
    // that were relocated, which are not as in the file.
    unsafe {
        rustix::mm::madvise(start, code.len(), Advice::LinuxDontNeed)?;
    }
    Ok(code.len())
}

/// The mapping that this address is in, if it is code as a linker makes it: of a file, and never written to.
fn code_around(maps: &str, address: usize) -> Option<Range<usize>> {
    maps.lines().find_map(|line| {
        let mut fields = line.split_ascii_whitespace();
        let (range, rights) = (fields.next()?, fields.next()?);
        let (_offset, _device, inode) = (fields.next()?, fields.next()?, fields.next()?);
        let (start, end) = range.split_once('-')?;
        let number = |text| usize::from_str_radix(text, 16).ok();
        let range = number(start)?..number(end)?;
        let is_code = rights == "r-xp" && inode != "0";
        (is_code && range.contains(&address)).then_some(range)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAPS: &str = "\
55d000000000-55d000010000 r--p 00000000 fe:00 77 /usr/bin/cairn
55d000010000-55d000090000 r-xp 00010000 fe:00 77 /usr/bin/cairn
55d000090000-55d0000a0000 rwxp 00090000 fe:00 77 /usr/bin/cairn
7f0000000000-7f0000010000 r-xp 00000000 00:00 0
7f0000010000-7f0000020000 r-xp 00000000 fe:00 80 /tmp/a program (deleted)
7ffd00000000-7ffd00001000 r-xp 00000000 00:00 0 [vdso]
";

    #[test]
    fn code_is_what_is_mapped_from_a_file_and_never_written_to() {
        let code = |address| code_around(MAPS, address);
        let own = Some(0x55d0_0001_0000..0x55d0_0009_0000);
        assert_eq!(code(0x55d0_0001_0000), own);
        assert_eq!(code(0x55d0_0008_ffff), own);
        let deleted = Some(0x7f00_0001_0000..0x7f00_0002_0000);
        assert_eq!(code(0x7f00_0001_2345), deleted);
        for (not, address) in [
            ("constants", 0x55d0_0000_8000),
            ("writable", 0x55d0_0009_0000),
            ("of no file: it would be gone", 0x7f00_0000_8000),
            ("the kernel's", 0x7ffd_0000_0000),
            ("not mapped", 0x1000),
        ] {
            assert_eq!(code(address), None, "{not}");
        }
        assert_eq!(code_around("a line of another kind\n", 0), None);
    }
}
