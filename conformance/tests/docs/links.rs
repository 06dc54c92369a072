//! Links lead to pages and headings that are there.

use std::fs;

use crate::{between, pages};

#[test]
fn every_link_leads_somewhere() {
    for page in pages() {
        let content = fs::read_to_string(&page).unwrap();
        for link in between(&content, "](", ")") {
            if link.contains("://") {
                continue;
            }
            let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
            let target = if file.is_empty() {
                page.clone()
            } else {
                page.parent().unwrap().join(file)
            };
            assert!(target.exists(), "{}: {link} leads nowhere", page.display());
            if !anchor.is_empty() {
                let target = fs::read_to_string(target).unwrap();
                let mut headings = target
                    .lines()
                    .filter(|line| line.starts_with('#'))
                    .map(slug);
                assert!(
                    headings.any(|h| h == anchor),
                    "{}: no heading for {link}",
                    page.display()
                );
            }
        }
    }
}

/// The anchor of a heading.
fn slug(heading: &str) -> String {
    let words = heading.trim_start_matches('#').trim().to_lowercase();
    let kept = words
        .chars()
        .filter(|c| c.is_alphanumeric() || [' ', '-', '_'].contains(c));
    kept.map(|c| if c == ' ' { '-' } else { c }).collect()
}
