//! Counts the messages of a gRPC body as it passes: each has five bytes before it that say how long it
//! is. Changes nothing and judges nothing.

/// One direction of a call.
#[derive(Debug, Default)]
pub struct Messages {
    count: u64,
    /// Bytes read of the five.
    prefix: u8,
    /// Bytes that the message still has; while its prefix is read, its length so far.
    left: u64,
}

impl Messages {
    /// Messages that have begun.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Reads the next piece of the body.
    pub fn read(&mut self, mut bytes: &[u8]) {
        while let Some((byte, rest)) = bytes.split_first() {
            if self.prefix == 0 && self.left > 0 {
                let skipped = usize::try_from(self.left)
                    .unwrap_or(usize::MAX)
                    .min(bytes.len());
                self.left -= skipped as u64;
                bytes = bytes.get(skipped..).unwrap_or_default();
                continue;
            }
            // First whether it is compressed, then its length.
            if self.prefix > 0 {
                self.left = self.left << 8 | u64::from(*byte);
            }
            self.prefix += 1;
            if self.prefix == 5 {
                self.prefix = 0;
                self.count += 1;
            }
            bytes = rest;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Messages;

    /// A body of messages of these lengths.
    fn body(lengths: &[u32]) -> Vec<u8> {
        let message = |length: &u32| {
            let mut bytes = vec![0];
            bytes.extend(length.to_be_bytes());
            bytes.extend(vec![1; *length as usize]);
            bytes
        };
        lengths.iter().flat_map(message).collect()
    }

    #[test]
    fn messages_are_counted_however_the_body_is_cut() {
        let body = body(&[0, 1, 300, 0, 70_000]);
        for size in [1, 2, 4, 5, 7, 1_000, body.len()] {
            let mut messages = Messages::default();
            body.chunks(size).for_each(|piece| messages.read(piece));
            assert_eq!(messages.count(), 5, "in pieces of {size}");
        }
    }

    #[test]
    fn half_a_prefix_is_no_message() {
        let mut messages = Messages::default();
        messages.read(&[0, 0, 0, 0]);
        assert_eq!(messages.count(), 0);
    }
}
