//! Code that was given back is mapped no more, and runs.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use cairn_allocator::give_back_code;

/// KiB that are resident of the mapping this program's code is in.
fn resident() -> u64 {
    let here = resident as fn() -> u64 as usize;
    let maps = std::fs::read_to_string("/proc/self/smaps").unwrap();
    let mut lines = maps.lines().skip_while(|line| {
        let range = line.split(' ').next().unwrap();
        let Some((start, end)) = range.split_once('-') else {
            return true;
        };
        let number = |text| usize::from_str_radix(text, 16);
        match (number(start), number(end)) {
            (Ok(start), Ok(end)) => !(start..end).contains(&here),
            _ => true,
        }
    });
    let kib = lines.find_map(|line| line.strip_prefix("Rss:")).unwrap();
    kib.trim().trim_end_matches(" kB").parse().unwrap()
}

#[test]
fn what_does_not_run_is_mapped_no_more() {
    let before = resident();
    let bytes = give_back_code().unwrap();
    let after = resident();
    assert!(bytes as u64 / 1024 >= before, "{bytes}");
    assert!(after < before, "{after} of {before} KiB are left");
    // It runs again, all the same, and what runs is mapped.
    let others = std::thread::spawn(|| (0..100_u32).map(|n| n.to_string()).collect::<String>());
    assert_eq!(others.join().unwrap().len(), 190);
    assert!(resident() >= after);
}
