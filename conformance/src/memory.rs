//! What a process holds of memory, as the kernel tells it.

/// Resident memory, in KiB.
#[derive(Clone, Copy, Debug)]
pub struct Memory {
    /// Its own: heap and stacks. What grows with what a process holds.
    pub own: u64,
    /// Mapped from files, nearly all of it the program: grows and shrinks with what runs.
    pub program: u64,
    /// The most there ever was of both.
    pub most: u64,
}

impl Memory {
    /// That of a process. Panics when there is none of this number.
    pub fn of(pid: u32) -> Self {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("a process");
        let kib = |key: &str| {
            let kib = status.lines().find_map(|line| line.strip_prefix(key));
            let kib = kib.expect("what proc(5) promises");
            kib.trim()
                .trim_end_matches(" kB")
                .parse()
                .expect("a number")
        };
        Self {
            own: kib("RssAnon:"),
            program: kib("RssFile:"),
            most: kib("VmHWM:"),
        }
    }

    /// [`Self::own`], in bytes.
    pub fn own_bytes(&self) -> f64 {
        self.own as f64 * 1024.0
    }
}
