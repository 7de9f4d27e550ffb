//! Flow control windows (RFC 9113 sections 5.2 and 6.9).

use super::frame::MOST_31_BITS;

/// The window that both sides begin with, in bytes.
pub const INITIAL_WINDOW: u32 = 65_535;

/// A window grew beyond 2^31-1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Overflow;

/// The peer sent more than its window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exceeded;

/// How much may be sent. Below 0 after a change of SETTINGS_INITIAL_WINDOW_SIZE (section 6.9.2), never otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SendWindow(i32);

impl SendWindow {
    /// A window of so many bytes; at most 2^31-1.
    pub fn new(size: u32) -> SendWindow {
        SendWindow(size.min(MOST_31_BITS) as i32)
    }

    /// Bytes that may be sent now.
    pub fn available(self) -> usize {
        self.0.max(0) as usize
    }

    /// What the window is, also below 0.
    #[cfg(test)]
    pub fn value(self) -> i32 {
        self.0
    }

    /// Takes what was sent. It must have been available.
    pub fn take(&mut self, length: usize) {
        debug_assert!(length <= self.available(), "more was sent than the window has");
        self.0 -= length.min(self.available()) as i32;
    }

    /// Takes a WINDOW_UPDATE.
    ///
    /// # Errors
    /// The window would be larger than 2^31-1.
    pub fn grow(&mut self, increment: u32) -> Result<(), Overflow> {
        self.adjust(i64::from(increment))
    }

    /// Takes the difference between two initial windows.
    ///
    /// # Errors
    /// The window would be larger than 2^31-1.
    pub fn adjust(&mut self, difference: i64) -> Result<(), Overflow> {
        let window = i64::from(self.0) + difference;
        // Not below -(2^31-1): it was not below 0 before the peer's settings took at most that much away at once.
        self.0 = i32::try_from(window).map_err(|_| Overflow)?;
        Ok(())
    }
}

/// How much the peer may send. What was received counts against it until it is given back; what was given back is told to
/// the peer once it is half of the window, so that a fast sender never waits and few frames are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReceiveWindow {
    /// The size it is kept at.
    size: u32,
    /// What the peer may send, as it knows. Below 0 only where the size was reduced.
    available: i64,
    /// Given back and not yet told.
    returned: u32,
}

impl ReceiveWindow {
    /// A window of so many bytes; at most 2^31-1.
    pub fn new(size: u32) -> ReceiveWindow {
        let size = size.min(MOST_31_BITS);
        ReceiveWindow { size, available: i64::from(size), returned: 0 }
    }

    /// Bytes that the peer may send.
    pub fn available(&self) -> i64 {
        self.available
    }

    /// Takes what the peer sent, padding included.
    ///
    /// # Errors
    /// It was more than it may; nothing is taken.
    pub fn receive(&mut self, length: u32) -> Result<(), Exceeded> {
        if i64::from(length) > self.available {
            return Err(Exceeded);
        }
        self.available -= i64::from(length);
        Ok(())
    }

    /// Gives back what was received, and says by how much a WINDOW_UPDATE is to be sent, if it is worth one.
    pub fn give_back(&mut self, length: u32) -> Option<u32> {
        self.returned = self.returned.saturating_add(length);
        debug_assert!(self.available + i64::from(self.returned) <= i64::from(self.size), "given back twice");
        if self.returned == 0 || self.returned < self.size / 2 {
            return None;
        }
        let increment = std::mem::take(&mut self.returned);
        self.available += i64::from(increment);
        Some(increment)
    }

    /// Changes the size: the peer was told by other means (SETTINGS), or is by a WINDOW_UPDATE of the difference.
    pub fn resize(&mut self, size: u32) {
        let size = size.min(MOST_31_BITS);
        self.available += i64::from(size) - i64::from(self.size);
        self.size = size;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// RFC 9113 section 6.9.1.
    #[test]
    fn a_send_window_never_exceeds_31_bits() {
        let mut window = SendWindow::new(INITIAL_WINDOW);
        assert_eq!(window.grow(MOST_31_BITS - INITIAL_WINDOW), Ok(()));
        assert_eq!(window.available(), MOST_31_BITS as usize);
        assert_eq!(window.grow(1), Err(Overflow));
        assert_eq!(window.value(), MOST_31_BITS as i32, "an error changes nothing");
    }

    /// RFC 9113 section 6.9.2, with its own numbers.
    #[test]
    fn a_send_window_may_be_negative_after_settings() {
        let mut window = SendWindow::new(65_535);
        window.take(60 * 1024);
        assert_eq!(window.adjust(16 * 1024 - 65_535), Ok(()));
        assert_eq!((window.value(), window.available()), (16 * 1024 - 60 * 1024, 0));
        assert_eq!(window.grow(44 * 1024 + 5), Ok(()));
        assert_eq!(window.available(), 5);
    }

    #[test]
    fn a_receive_window_is_told_in_halves() {
        let mut window = ReceiveWindow::new(100);
        assert_eq!(window.receive(100), Ok(()));
        assert_eq!(window.receive(1), Err(Exceeded));
        assert_eq!(window.give_back(49), None);
        assert_eq!(window.available(), 0);
        assert_eq!(window.give_back(1), Some(50));
        assert_eq!(window.available(), 50);
    }

    proptest! {
        /// What the peer may send, holds, and what is on its way back to it always add up to the size.
        #[test]
        fn nothing_is_lost_or_made_up(size in 1u32..5000, steps: Vec<(bool, u16)>) {
            let mut window = ReceiveWindow::new(size);
            let (mut held, mut peer) = (0u32, size);
            for (receives, length) in steps {
                let length = u32::from(length);
                if receives {
                    let fits = length <= peer;
                    prop_assert_eq!(window.receive(length).is_ok(), fits);
                    if fits {
                        peer -= length;
                        held += length;
                    }
                } else {
                    let length = length.min(held);
                    held -= length;
                    peer += window.give_back(length).unwrap_or(0);
                }
                prop_assert_eq!(window.available(), i64::from(peer));
                prop_assert!(peer + held + window.returned == size);
                prop_assert!(held > 0 || peer > size / 2, "a sender never waits for what nobody holds");
            }
        }
    }
}
