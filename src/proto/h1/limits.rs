//! Bounds on request heads, and nginx's way of counting them.

/// What a request head may take; from the configuration of the default server (nginx reads heads with that one).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeadLimits {
    /// `client_header_buffer_size`, in bytes: a head that fits in it costs no further count.
    pub header_buffer: u32,
    /// Number of `large_client_header_buffers`.
    pub large_buffers: u32,
    /// Size of each, in bytes; no line may be longer.
    pub large_buffer_size: u32,
    /// `max_headers`: most field lines.
    pub max_headers: u32,
    /// `ignore_invalid_headers`: lines with unusual names are left out rather than kept.
    pub ignore_invalid_headers: bool,
    /// `underscores_in_headers`: names with an underscore are usual.
    pub underscores_in_headers: bool,
    /// Whether CONNECT is let through (a server with `tunnel_pass`); otherwise it is answered 405.
    pub allow_connect: bool,
}

impl Default for HeadLimits {
    /// nginx's defaults.
    fn default() -> Self {
        HeadLimits {
            header_buffer: 1024,
            large_buffers: 4,
            large_buffer_size: 8192,
            max_headers: 1000,
            ignore_invalid_headers: true,
            underscores_in_headers: false,
            allow_connect: false,
        }
    }
}

/// Most bytes of a head, whatever the configuration says: spans are 32 bits wide, and a connection must not own more.
pub(super) const HEAD_CEILING: usize = 16 << 20;

/// Room left for a head, counted as nginx fills its buffers: a line never straddles two of them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Room {
    rest: usize,
    large_used: u32,
    total: usize,
}

impl Room {
    pub(super) fn new(limits: &HeadLimits) -> Room {
        Room { rest: limits.header_buffer as usize, large_used: 0, total: 0 }
    }

    /// Longest line that still fits, in bytes, its end included.
    pub(super) fn longest_line(&self, limits: &HeadLimits) -> usize {
        let large =
            if self.large_used < limits.large_buffers { limits.large_buffer_size as usize } else { 0 };
        self.rest.max(large).min(HEAD_CEILING - self.total)
    }

    /// Whether a line of `length` bytes, its end included, still fits; for a line that has not ended, whether what is
    /// there does.
    pub(super) fn fits(&self, length: usize, limits: &HeadLimits) -> bool {
        length <= self.longest_line(limits)
    }

    /// Takes the room for a line; false if there is none.
    pub(super) fn take(&mut self, length: usize, limits: &HeadLimits) -> bool {
        if !self.fits(length, limits) {
            return false;
        }
        self.total += length;
        if length <= self.rest {
            self.rest -= length;
        } else {
            self.large_used += 1;
            self.rest = limits.large_buffer_size as usize - length;
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_move_to_the_next_buffer_whole() {
        let limits = HeadLimits {
            header_buffer: 10,
            large_buffers: 2,
            large_buffer_size: 20,
            ..HeadLimits::default()
        };
        let mut room = Room::new(&limits);
        assert!(room.take(8, &limits));
        assert!(!room.fits(21, &limits));
        assert!(room.take(15, &limits));
        assert!(room.take(5, &limits));
        assert!(room.take(20, &limits));
        assert!(!room.take(1, &limits));
    }
}
