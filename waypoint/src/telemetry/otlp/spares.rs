//! Buffers of messages that were sent, for the next ones: memory that was written to is not given back and taken anew, page by
//! page, some twenty times a second. Knows nothing of what is in them.

use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;

use crate::limits::{OTLP_ROOM_BYTES_MAX, OTLP_SPARES_MAX};

/// Up to [`OTLP_SPARES_MAX`], for all workers and receivers, as long as there is something to send.
#[derive(Debug, Default)]
pub(super) struct Spares(Mutex<Vec<Vec<u8>>>);

impl Spares {
    /// An empty buffer with so much room.
    pub(super) fn take(&self, room: usize) -> Vec<u8> {
        if room == 0 {
            return Vec::new();
        }
        let spare = self.all().and_then(|mut all| all.pop());
        // One that grows is copied, what nobody needs any more included.
        match spare.filter(|spare| spare.capacity() >= room) {
            Some(spare) => spare,
            None => Vec::with_capacity(room),
        }
    }

    /// The bytes of a buffer from `start` on, which comes back here when nobody holds them any more.
    pub(super) fn lend(self: &Arc<Self>, buffer: Vec<u8>, start: usize) -> Bytes {
        let home = self.clone();
        Bytes::from_owner(Lent { buffer, home }).slice(start..)
    }

    /// Gives their memory back.
    pub(super) fn let_go(&self) {
        // Given back without the lock: a large one takes a call of the kernel.
        let all = self.all().map(|mut all| std::mem::take(&mut *all));
        drop(all);
    }

    /// Takes a buffer that nobody needs.
    pub(super) fn give(&self, mut buffer: Vec<u8>) {
        if buffer.capacity() == 0 || buffer.capacity() > OTLP_ROOM_BYTES_MAX {
            return;
        }
        buffer.clear();
        // Before the lock, so that it is given back after it.
        let mut too_many = Some(buffer);
        if let Some(mut all) = self.all()
            && all.len() < OTLP_SPARES_MAX
        {
            all.extend(too_many.take());
        }
    }

    /// `None`: another thread has them just now. A worker does not wait for one that the scheduler took off with the lock; to
    /// do without a spare costs memory that is taken anew.
    fn all(&self) -> Option<MutexGuard<'_, Vec<Vec<u8>>>> {
        self.0.try_lock().ok()
    }
}

/// A buffer that is read.
struct Lent {
    buffer: Vec<u8>,
    home: Arc<Spares>,
}

impl AsRef<[u8]> for Lent {
    fn as_ref(&self) -> &[u8] {
        &self.buffer
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        self.home.give(std::mem::take(&mut self.buffer));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(spares: &Spares) -> Vec<usize> {
        let all = spares.all().unwrap();
        all.iter().map(|spare| spare.as_ptr().addr()).collect()
    }

    #[test]
    fn a_buffer_comes_back_when_the_last_who_reads_it_is_done() {
        let spares = Arc::<Spares>::default();
        let mut buffer = spares.take(100);
        buffer.extend_from_slice(b"--message");
        let place = buffer.as_ptr().addr();
        let message = spares.lend(buffer, 2);
        let other = message.clone();
        drop(message);
        assert!(places(&spares).is_empty());
        assert_eq!(other, "message");
        drop(other);
        assert_eq!(places(&spares), [place]);
        // With other room than it has, and empty.
        let again = spares.take(50);
        assert_eq!((again.as_ptr().addr(), again.len()), (place, 0));
        spares.give(again);
        assert!(spares.take(1_000_000).capacity() >= 1_000_000);
        assert_eq!(spares.take(0).capacity(), 0);
    }

    /// Were there a wait, this would not end.
    #[test]
    fn nobody_waits_for_who_has_the_buffers() {
        let spares = Arc::<Spares>::default();
        spares.give(Vec::with_capacity(100));
        let held = spares.all();
        assert!(spares.take(100).capacity() >= 100);
        spares.give(Vec::with_capacity(100));
        spares.let_go();
        drop(held);
        assert_eq!(places(&spares).len(), 1);
    }

    #[test]
    fn no_more_is_kept_than_the_limits() {
        let spares = Arc::<Spares>::default();
        for _ in 0..2 * OTLP_SPARES_MAX {
            spares.give(Vec::with_capacity(10));
        }
        assert_eq!(places(&spares).len(), OTLP_SPARES_MAX);
        spares.let_go();
        spares.give(Vec::with_capacity(OTLP_ROOM_BYTES_MAX + 1));
        assert!(places(&spares).is_empty());
    }
}
