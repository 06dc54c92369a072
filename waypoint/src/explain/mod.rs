//! What would become of one request, and why, asked of the code that decides in the data path. For
//! `cairn explain` and whoever else asks before sending; it decides nothing itself and sends nothing.

mod backends;
mod chain;
mod destination;
mod judge;
mod report;
mod streams;

pub use destination::client;
pub use judge::{Question, judge, judge_on};
pub use report::{
    Answer, Asked, Backend, By, Client, Destination, Endpoint, HttpRequest, Link, LinkOutcome,
    Refused, Report, Route,
};
