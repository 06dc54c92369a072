//! What stays in force when files change and break: the store, reload by reload.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

mod cache;
mod changes;
mod contests;
mod damaged_lists;
mod duplicates;
mod last_good;
mod lists;
mod support;
mod unreadable;
