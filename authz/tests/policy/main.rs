//! What policies mean, as cases a reader can learn the rules from, and as properties held against a
//! naive oracle. How YAML becomes these policies is tested in `cairn-config-schema`.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod dry_run;
mod explain;
mod fields;
mod generate;
mod oracle;
mod order;
mod properties;
mod request;
mod rules;
mod tcp;
mod templates;
