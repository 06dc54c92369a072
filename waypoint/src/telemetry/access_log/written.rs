//! What lines have in common, as a worker has written it: by the objects that it is of, which are held so that no other can
//! take their place. Knows no text.

use std::collections::hash_map::Entry;
use std::sync::Arc;

use rustc_hash::FxHashMap;

use super::line::{Alike, Line};
use crate::limits::ACCESS_LOG_ALIKE_MAX;
use crate::telemetry::alike::{LineKey, Objects};
use crate::telemetry::exchange::Exchange;
use crate::telemetry::kept::{Counted, Size};

/// Up to [`ACCESS_LOG_ALIKE_MAX`].
#[derive(Debug, Default)]
pub(super) struct Written {
    /// The latest seen: what only an older one has is let go with the first line of a newer one.
    snapshot: u64,
    alike: FxHashMap<LineKey, Kept>,
    /// Where they are counted.
    size: Arc<Size>,
}

#[derive(Debug)]
struct Kept {
    alike: Alike,
    /// Keeps the places of the objects taken.
    _held: Objects,
    _counted: Counted,
}

impl Kept {
    fn new(alike: Alike, held: Objects, size: &Arc<Size>) -> Self {
        let beside = size_of::<(LineKey, Self)>() - size_of::<Alike>();
        Self {
            _counted: Counted::new(alike.bytes() + beside, size),
            alike,
            _held: held,
        }
    }
}

impl Written {
    /// Without a line. `size`: of all workers.
    pub(super) fn new(size: Arc<Size>) -> Self {
        Self {
            size,
            ..Self::default()
        }
    }

    /// What the line of an exchange has in common with others; `None`: nothing.
    pub(super) fn alike(&mut self, exchange: &Exchange, line: &Line<'_>) -> Option<&Alike> {
        self.of_snapshot(exchange.snapshot);
        let key = LineKey::of(exchange)?;
        if self.alike.len() >= ACCESS_LOG_ALIKE_MAX && !self.alike.contains_key(&key) {
            self.alike.clear();
        }
        let kept = match self.alike.entry(key) {
            Entry::Occupied(there) => there.into_mut(),
            Entry::Vacant(place) => {
                let (alike, held) = (line.alike().ok()?, Objects::of_line(exchange));
                place.insert(Kept::new(alike, held, &self.size))
            }
        };
        Some(&kept.alike)
    }

    /// Lets go of what only older snapshots have.
    pub(super) fn of_snapshot(&mut self, version: u64) {
        if version > self.snapshot {
            self.let_go();
            self.snapshot = version;
        }
    }

    /// Lets go of all objects.
    pub(super) fn let_go(&mut self) {
        // A new table, for an empty one would keep its memory.
        self.alike = FxHashMap::default();
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::time::Duration;

    use super::super::time::TimeText;
    use super::*;
    use crate::telemetry::fixtures;

    /// The line of an exchange: in full, and around what others had in common with it.
    fn lines(exchange: &Exchange, written: &mut Written) -> [String; 2] {
        let mut time = TimeText::default();
        let started_at = time.text(exchange.started_at);
        let line = Line::new(exchange, started_at, Duration::from_millis(5));
        let [mut full, mut around] = [Vec::new(), Vec::new()];
        line.write(&mut full).unwrap();
        match written.alike(exchange, &line) {
            Some(alike) => line.write_around(alike, &mut around).unwrap(),
            None => around.clone_from(&full),
        }
        [full, around].map(|text| String::from_utf8(text).unwrap())
    }

    #[test]
    fn lines_are_the_same_whatever_was_written_before() {
        let mut written = Written::default();
        let base = fixtures::http();
        let exchanges: Vec<_> = fixtures::CHANGES
            .iter()
            .map(|change| {
                let mut exchange = fixtures::http();
                // The objects are the same for all, as they are in a snapshot.
                exchange.source.clone_from(&base.source);
                exchange.service.clone_from(&base.service);
                exchange.endpoint.clone_from(&base.endpoint);
                exchange.origin.clone_from(&base.origin);
                change(&mut exchange);
                exchange
            })
            .collect();
        let mut all = HashSet::new();
        for _ in 0..3 {
            for exchange in &exchanges {
                let [full, around] = lines(exchange, &mut written);
                assert_eq!(around, full);
                all.insert(full);
            }
        }
        // Of gRPC, clients and workloads lines do not say all that differs.
        assert!(all.len() >= exchanges.len() - 5, "{}", all.len());
        let kept = |exchange: &Exchange| LineKey::of(exchange).is_some();
        assert!(kept(&base) && exchanges.iter().filter(|of| kept(of)).count() > 20);
    }

    #[test]
    fn no_more_is_kept_than_the_limit_and_nothing_of_an_older_snapshot() {
        let size = Arc::<Size>::default();
        // Another worker's count, too.
        let mut other = Written::new(size.clone());
        lines(&fixtures::http(), &mut other);
        let (_, of_one) = size.get();
        assert!(of_one > size_of::<Kept>(), "the text is counted: {of_one}");
        let mut written = Written::new(size.clone());
        let mut exchange = fixtures::http();
        let first = fixtures::service("first");
        exchange.service = Some(first.clone());
        lines(&exchange, &mut written);
        assert_eq!(Arc::strong_count(&first.hostname), 2);
        for port in 0..=1_024 {
            exchange.service_port = port;
            lines(&exchange, &mut written);
            assert!(written.alike.len() <= ACCESS_LOG_ALIKE_MAX);
            assert_eq!(size.get().0, written.alike.len() + 1);
        }
        exchange.snapshot += 1;
        exchange.service = Some(fixtures::service("second"));
        lines(&exchange, &mut written);
        assert_eq!(Arc::strong_count(&first.hostname), 1);
        assert_eq!(written.alike.len(), 1);
        written.let_go();
        assert!(written.alike.is_empty());
        assert_eq!(size.get(), (1, of_one));
        drop(other);
        assert_eq!(size.get(), (0, 0));
    }
}
