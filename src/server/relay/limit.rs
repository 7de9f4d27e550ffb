//! `proxy_limit_rate`: how fast a response is read from the upstream.

/// A rate, as one response has used it so far.
#[derive(Clone, Copy, Debug)]
pub struct Limit {
    bytes_per_second: u64,
    received: u64,
    began_ms: u64,
    /// Monotonic milliseconds until which nothing is read; 0 if something may be.
    pub until_ms: u64,
}

impl Limit {
    /// A rate that begins now; as in nginx the first second's worth may come at once.
    pub fn new(bytes_per_second: u64, now_ms: u64) -> Limit {
        Limit { bytes_per_second, received: 0, began_ms: now_ms, until_ms: 0 }
    }

    /// How many of `most` bytes may be read now. Where none may, `until_ms` says when.
    pub fn room(&mut self, most: usize, now_ms: u64) -> usize {
        let elapsed = u128::from(now_ms - self.began_ms + 1000);
        let granted = (u128::from(self.bytes_per_second) * elapsed / 1000) as u64;
        let room = granted.saturating_sub(self.received);
        if room > 0 {
            self.until_ms = 0;
            return most.min(usize::try_from(room).unwrap_or(usize::MAX));
        }
        let due_ms = u128::from(self.received + 1) * 1000 / u128::from(self.bytes_per_second.max(1));
        let wait_ms = (due_ms.saturating_sub(elapsed) as u64).clamp(1, 1000);
        self.until_ms = now_ms + wait_ms;
        0
    }

    /// So many bytes were read.
    pub fn note(&mut self, count: u64) {
        self.received += count;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_is_read_than_the_rate_allows() {
        let mut limit = Limit::new(1000, 5_000);
        let (mut now_ms, mut read) = (5_000, 0);
        while now_ms < 15_000 {
            match limit.room(300, now_ms) {
                0 => {
                    assert!(limit.until_ms > now_ms);
                    now_ms = limit.until_ms;
                }
                room => {
                    limit.note(room as u64);
                    read += room as u64;
                }
            }
            assert!(read <= (now_ms - 5_000) + 1000, "{read} bytes after {} ms", now_ms - 5_000);
        }
        assert!(read >= 9_000, "only {read} bytes in ten seconds");
    }
}
