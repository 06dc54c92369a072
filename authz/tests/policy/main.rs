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
mod generate;
mod oracle;
mod order;
mod pairs;
mod properties;
mod request;
mod request_fields;
mod rules;
mod source_fields;
mod tcp;
mod templates;
