//! How much is let in: token buckets by rate, and places shared fairly (TrafficPolicy of Cairn). Counts;
//! what is refused is answered elsewhere, and time and hashes are arguments.

mod bucket;
mod keyed;
mod places;

pub use bucket::{Bucket, Rate};
pub use keyed::{KeyedBuckets, Taken};
pub use places::{Place, Places, Share};
