//! Has the kernel forget where the code of the program is mapped. What runs is mapped again as it is reached, from the
//! page cache; what only ran while something was read stays unmapped. Frees no memory of the process's own.
//!
//! The kernel maps 64 KiB around each place that runs, and never takes a mapping away by itself: after a start nearly
//! all code is resident, a sixth of which runs afterwards.

use std::io;
use std::ops::Range;

use rustix::mm::Advice;

/// Gives the mapping of the program's code back, and says how many bytes of address space that is. Not while something
/// was written into it: a breakpoint, a uprobe, a patch. One that a debugger sets in this very moment is lost.
///
/// # Errors
/// When the code is not what the file has, or not mapped as code is, or the kernel refuses.
#[allow(unsafe_code, reason = "nothing else gives a mapping back")]
pub fn give_back_code() -> io::Result<usize> {
    let mappings = std::fs::read_to_string("/proc/self/smaps")?;
    let here = give_back_code as fn() -> io::Result<usize> as usize;
    let code = code_around(&mappings, here).ok_or(io::ErrorKind::Unsupported)?;
    let start = std::ptr::with_exposed_provenance_mut(code.start);
    // SAFETY: the range is one private mapping of a file, not writable and without a page of the process's own: each
    // page is what the file has there, and is read from there again (madvise(2), MADV_DONTNEED).
    unsafe {
        rustix::mm::madvise(start, code.len(), Advice::LinuxDontNeed)?;
    }
    Ok(code.len())
}

/// The mapping that this address is in, if it is code of a file, none of which was changed (proc_pid_smaps(5)).
fn code_around(mappings: &str, address: usize) -> Option<Range<usize>> {
    let mut lines = mappings.lines();
    let range = lines.by_ref().find_map(|line| {
        let mut fields = line.split_ascii_whitespace();
        let (range, rights) = (fields.next()?, fields.next()?);
        let (_offset, _device, inode) = (fields.next()?, fields.next()?, fields.next()?);
        let (start, end) = range.split_once('-')?;
        let number = |text| usize::from_str_radix(text, 16).ok();
        let range = number(start)?..number(end)?;
        let is_code = rights == "r-xp" && inode != "0";
        (is_code && range.contains(&address)).then_some(range)
    })?;
    let (mut is_unchanged, mut is_free) = (false, false);
    for line in lines {
        match line.split_once(':') {
            Some(("Anonymous", kib)) => is_unchanged = kib.trim() == "0 kB",
            Some(("Locked", kib)) => is_free = kib.trim() == "0 kB",
            // The last line of a mapping. Huge pages of their own file system are no pages of a page cache.
            Some(("VmFlags", flags)) => {
                let is_huge = flags.split_ascii_whitespace().any(|flag| flag == "ht");
                return (is_unchanged && is_free && !is_huge).then_some(range);
            }
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: usize = 0x55d0_0001_0000;

    /// Constants, code and what is written to, as the kernel tells of them.
    fn mappings(rights: &str, inode: &str, anonymous: &str, locked: &str, flags: &str) -> String {
        format!(
            "\
55d000000000-55d000010000 r--p 00000000 fe:00 77 /usr/bin/cairn
Size:                 64 kB
Anonymous:             0 kB
Locked:                0 kB
VmFlags: rd mr mw me
55d000010000-55d000090000 {rights} 00010000 fe:00 {inode} /usr/bin/a program (deleted)
Size:                512 kB
Anonymous:            {anonymous} kB
Locked:                {locked} kB
VmFlags: {flags}
55d000090000-55d0000a0000 rw-p 00090000 fe:00 77 /usr/bin/cairn
Anonymous:             4 kB
Locked:                0 kB
VmFlags: rd wr mr mw me
"
        )
    }

    #[test]
    fn code_is_what_is_mapped_from_a_file_and_was_never_changed() {
        let code = mappings("r-xp", "77", "0", "0", "rd ex mr mw me");
        let own = Some(START..0x55d0_0009_0000);
        assert_eq!(code_around(&code, START), own);
        assert_eq!(code_around(&code, 0x55d0_0008_ffff), own);
        for (not, address) in [
            ("constants", 0x55d0_0000_8000),
            ("what is written to", 0x55d0_0009_0000),
            ("not mapped", 0x1000),
        ] {
            assert_eq!(code_around(&code, address), None, "{not}");
        }
        for (not, code) in [
            ("writable", mappings("rwxp", "77", "0", "0", "rd wr ex")),
            ("shared", mappings("r-xs", "77", "0", "0", "rd ex sh")),
            ("of no file", mappings("r-xp", "0", "0", "0", "rd ex")),
            (
                "with a breakpoint",
                mappings("r-xp", "77", "4", "0", "rd ex"),
            ),
            ("locked", mappings("r-xp", "77", "0", "512", "rd ex lo")),
            (
                "of huge pages",
                mappings("r-xp", "77", "0", "0", "rd ex ht"),
            ),
        ] {
            assert_eq!(code_around(&code, START), None, "{not}");
        }
        let cut = code_around(&code[..code.find("VmFlags: rd ex").unwrap()], START);
        assert_eq!(cut, None, "it is not known whether it was changed");
    }
}
