//! SETTINGS (RFC 9113 section 6.5, RFC 8441 section 3, RFC 9218 section 2.1).

use super::error::ConnectionError;
use super::flow::INITIAL_WINDOW;
use super::frame::{DEFAULT_MAX_FRAME_SIZE, LARGEST_MAX_FRAME_SIZE, MOST_31_BITS};

pub(super) const HEADER_TABLE_SIZE: u16 = 1;
pub(super) const ENABLE_PUSH: u16 = 2;
pub(super) const MAX_CONCURRENT_STREAMS: u16 = 3;
pub(super) const INITIAL_WINDOW_SIZE: u16 = 4;
pub(super) const MAX_FRAME_SIZE: u16 = 5;
pub(super) const MAX_HEADER_LIST_SIZE: u16 = 6;
pub(super) const ENABLE_CONNECT_PROTOCOL: u16 = 8;
pub(super) const NO_RFC7540_PRIORITIES: u16 = 9;

/// What a side said about itself; before that, what holds until it does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Bytes of dynamic table that it decodes with.
    pub header_table_size: u32,
    /// Whether it takes PUSH_PROMISE.
    pub enable_push: bool,
    /// Streams that the other side may have open; `None` is without a limit.
    pub max_concurrent_streams: Option<u32>,
    /// Window of new streams, in bytes.
    pub initial_window: u32,
    /// Largest payload that it takes, in bytes.
    pub max_frame_size: u32,
    /// Largest list of fields that it takes, in bytes; advice only.
    pub max_header_list_size: Option<u32>,
    /// Whether CONNECT with `:protocol` may be sent to it.
    pub enable_connect_protocol: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            header_table_size: super::hpack::TABLE_SIZE as u32,
            enable_push: true,
            max_concurrent_streams: None,
            initial_window: INITIAL_WINDOW,
            max_frame_size: DEFAULT_MAX_FRAME_SIZE,
            max_header_list_size: None,
            enable_connect_protocol: false,
        }
    }
}

/// The parameters of a payload whose length is a multiple of six.
pub fn parameters(payload: &[u8]) -> impl Iterator<Item = (u16, u32)> {
    payload
        .as_chunks::<6>()
        .0
        .iter()
        .map(|&[a, b, c, d, e, f]| (u16::from_be_bytes([a, b]), u32::from_be_bytes([c, d, e, f])))
}

impl Settings {
    /// Takes one parameter; unknown ones are ignored. `by_server` says that a server sent it.
    ///
    /// # Errors
    /// A value out of its bounds.
    pub fn apply(&mut self, id: u16, value: u32, by_server: bool) -> Result<(), ConnectionError> {
        match id {
            HEADER_TABLE_SIZE => self.header_table_size = value,
            ENABLE_PUSH => {
                if value > 1 || (by_server && value != 0) {
                    return Err(ConnectionError::protocol("peer sent an invalid SETTINGS_ENABLE_PUSH"));
                }
                self.enable_push = value == 1;
            }
            MAX_CONCURRENT_STREAMS => self.max_concurrent_streams = Some(value),
            INITIAL_WINDOW_SIZE => {
                if value > MOST_31_BITS {
                    return Err(ConnectionError::flow("peer sent an invalid SETTINGS_INITIAL_WINDOW_SIZE"));
                }
                self.initial_window = value;
            }
            MAX_FRAME_SIZE => {
                if !(DEFAULT_MAX_FRAME_SIZE..=LARGEST_MAX_FRAME_SIZE).contains(&value) {
                    return Err(ConnectionError::protocol("peer sent an invalid SETTINGS_MAX_FRAME_SIZE"));
                }
                self.max_frame_size = value;
            }
            MAX_HEADER_LIST_SIZE => self.max_header_list_size = Some(value),
            ENABLE_CONNECT_PROTOCOL => {
                // Not to be taken back once it was said (RFC 8441 section 3).
                if value > 1 || (value == 0 && self.enable_connect_protocol) {
                    return Err(ConnectionError::protocol(
                        "peer sent an invalid SETTINGS_ENABLE_CONNECT_PROTOCOL",
                    ));
                }
                self.enable_connect_protocol = value == 1;
            }
            NO_RFC7540_PRIORITIES if value > 1 => {
                return Err(ConnectionError::protocol("peer sent an invalid SETTINGS_NO_RFC7540_PRIORITIES"));
            }
            _ => {}
        }
        Ok(())
    }
}

/// Appends one parameter to a payload.
pub(super) fn write_parameter(id: u16, value: u32, payload: &mut Vec<u8>) {
    payload.extend_from_slice(&id.to_be_bytes());
    payload.extend_from_slice(&value.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::super::error::ErrorCode;
    use super::*;

    /// RFC 9113 section 6.5.2, RFC 8441 section 3, RFC 9218 section 2.1.
    #[test]
    fn values_have_bounds() {
        let cases: &[(u16, u32, bool, Option<ErrorCode>)] = &[
            (ENABLE_PUSH, 0, false, None),
            (ENABLE_PUSH, 1, false, None),
            (ENABLE_PUSH, 2, false, Some(ErrorCode::PROTOCOL_ERROR)),
            (ENABLE_PUSH, 1, true, Some(ErrorCode::PROTOCOL_ERROR)),
            (ENABLE_PUSH, 0, true, None),
            (INITIAL_WINDOW_SIZE, 0, false, None),
            (INITIAL_WINDOW_SIZE, MOST_31_BITS, false, None),
            (INITIAL_WINDOW_SIZE, MOST_31_BITS + 1, false, Some(ErrorCode::FLOW_CONTROL_ERROR)),
            (MAX_FRAME_SIZE, 16_383, false, Some(ErrorCode::PROTOCOL_ERROR)),
            (MAX_FRAME_SIZE, 16_384, false, None),
            (MAX_FRAME_SIZE, 16_777_215, false, None),
            (MAX_FRAME_SIZE, 16_777_216, false, Some(ErrorCode::PROTOCOL_ERROR)),
            (ENABLE_CONNECT_PROTOCOL, 2, false, Some(ErrorCode::PROTOCOL_ERROR)),
            (NO_RFC7540_PRIORITIES, 1, false, None),
            (NO_RFC7540_PRIORITIES, 2, false, Some(ErrorCode::PROTOCOL_ERROR)),
            (HEADER_TABLE_SIZE, u32::MAX, false, None),
            (MAX_CONCURRENT_STREAMS, 0, false, None),
            (0x2a2a, u32::MAX, false, None),
        ];
        for &(id, value, by_server, expected) in cases {
            let found = Settings::default().apply(id, value, by_server).err().map(|error| error.code);
            assert_eq!(found, expected, "{id} {value}");
        }
        let mut settings = Settings::default();
        settings.apply(ENABLE_CONNECT_PROTOCOL, 1, true).unwrap();
        assert!(settings.apply(ENABLE_CONNECT_PROTOCOL, 0, true).is_err());
    }

    #[test]
    fn parameters_are_read_in_order() {
        let mut payload = Vec::new();
        write_parameter(MAX_CONCURRENT_STREAMS, 7, &mut payload);
        write_parameter(MAX_CONCURRENT_STREAMS, 9, &mut payload);
        assert_eq!(parameters(&payload).collect::<Vec<_>>(), [(3, 7), (3, 9)]);
    }
}
