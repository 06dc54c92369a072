//! What is written to `status`, and that nothing is written that is there already.

pub mod entries;
pub mod gateway;
