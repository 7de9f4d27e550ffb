//! Response bodies.

use std::rc::Rc;

use super::file::FileRange;

/// A response body, pulled piece by piece while the output has room.
#[derive(Debug, Default)]
pub enum Body {
    /// Nothing.
    #[default]
    Empty,
    /// Bytes of the program.
    Static(&'static [u8]),
    /// Bytes made for this response.
    Bytes(Vec<u8>),
    /// Bytes that several responses share, from `offset` on.
    Shared {
        /// All of them.
        bytes: Rc<[u8]>,
        /// How many are sent.
        offset: usize,
    },
    /// A range of a file: from its content in memory if it is there, else by `sendfile`.
    File(FileRange),
    /// Several pieces one after the other (multiple ranges); sent from the back of the list, which is reversed.
    Pieces(Vec<Body>),
    /// What comes from the upstream whose head was answered: pulled from the relay. Its length, where it is known.
    Upstream(Option<u64>),
}

impl Body {
    /// How many bytes it has left; the largest number where that is not known.
    pub fn len(&self) -> u64 {
        match self {
            Body::Empty => 0,
            Body::Static(bytes) => bytes.len() as u64,
            Body::Bytes(bytes) => bytes.len() as u64,
            Body::Shared { bytes, offset } => (bytes.len() - offset) as u64,
            Body::File(range) => range.length,
            Body::Pieces(pieces) => pieces.iter().map(Body::len).sum(),
            Body::Upstream(length) => length.unwrap_or(u64::MAX),
        }
    }

    /// Whether nothing is left.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The part of it from `offset` on, `length` bytes long; both must lie within.
    pub fn slice(&self, offset: u64, length: u64) -> Body {
        debug_assert!(offset + length <= self.len());
        let range = offset as usize..(offset + length) as usize;
        match self {
            Body::Empty | Body::Upstream(_) => Body::Empty,
            Body::Pieces(pieces) => Body::Pieces(slice_pieces(pieces, offset, length)),
            Body::Static(bytes) => Body::Static(&bytes[range]),
            Body::Bytes(bytes) => Body::Bytes(bytes[range].to_vec()),
            Body::Shared { bytes, offset } => Body::Bytes(bytes[*offset..][range].to_vec()),
            Body::File(file) => {
                Body::File(FileRange { handle: file.handle.clone(), offset: file.offset + offset, length })
            }
        }
    }
}

/// The part of pieces (which stand in reverse) from `offset` on.
fn slice_pieces(pieces: &[Body], mut offset: u64, mut length: u64) -> Vec<Body> {
    let mut cut = Vec::new();
    for piece in pieces.iter().rev() {
        if offset >= piece.len() {
            offset -= piece.len();
            continue;
        }
        let count = length.min(piece.len() - offset);
        if count == 0 {
            break;
        }
        cut.push(piece.slice(offset, count));
        length -= count;
        offset = 0;
    }
    cut.reverse();
    cut
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_of_pieces_is_cut_from_those_that_it_lies_in() {
        let pieces =
            Body::Pieces(vec![Body::Static(b"gh"), Body::Bytes(b"def".to_vec()), Body::Static(b"abc")]);
        let text = |offset, length| match pieces.slice(offset, length) {
            Body::Pieces(cut) => cut
                .iter()
                .rev()
                .flat_map(|piece| match piece {
                    Body::Static(bytes) => bytes.to_vec(),
                    Body::Bytes(bytes) => bytes.clone(),
                    other => panic!("{other:?}"),
                })
                .collect::<Vec<u8>>(),
            other => panic!("{other:?}"),
        };
        assert_eq!(text(0, 8), b"abcdefgh");
        assert_eq!(text(1, 3), b"bcd");
        assert_eq!(text(3, 3), b"def");
        assert_eq!(text(7, 1), b"h");
        assert_eq!(text(8, 0), b"");
    }
}
